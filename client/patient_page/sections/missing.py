"""The patient's missing data, and their effect on the risk."""

from client.patient_page.content import Explained
from client.patient_page.waterfall import PER_UNIT, show_step
from shared_model.pages.blocks import Block, Cell, Section, Table, Text
from shared_model.pages.wording import Words


def describe_missing(explained: Explained, words: Words) -> Section:
    """Modalities and variables without a value."""
    title = words("missing.title")
    if not explained.missing:
        return Section("missing", title, (Text(words("missing.nothing")),))
    rows: list[tuple[Cell, ...]] = [
        (
            words("missing.whole", name=one.modality) if one.feature is None else one.feature,
            one.modality,
            show_step(round(one.phi * PER_UNIT)),
        )
        for one in sorted(explained.missing, key=lambda one: -abs(one.phi))
    ]
    table = Table(
        caption=words("missing.table"),
        columns=tuple(words(f"missing.{key}") for key in ("what", "modality", "phi")),
        rows=tuple(rows),
        name="missing",
    )
    blocks: tuple[Block, ...] = (Text(words("missing.intro")), table)
    return Section("missing", title, blocks)
