"""A guide to reading the page, and its origin."""

from client.patient_page.content import Explained
from shared_model.pages.blocks import BulletPoints, Cell, Folded, Section, Table
from shared_model.pages.wording import Words


def describe_reading(explained: Explained, words: Words) -> Section:
    """What the numbers mean, what they do not, and where they come from."""
    made_from: tuple[tuple[Cell, ...], ...] = (
        (words("reading.run"), explained.run_id),
        (words("reading.model"), explained.model_hash),
        (words("reading.study"), explained.study),
        (words("reading.outcome"), explained.outcome),
    )
    table = Table(words("reading.made"), (words("reading.what"), words("reading.value")), made_from, "made-from")
    points = tuple(words.section("reading.points").values())
    return Section("reading", words("reading.title"), (BulletPoints(points), Folded(words("reading.made"), (table,))))
