"""A guide to reading a Shapley value, and its limits."""

import math

from server.report.content import RunContent
from shared_model.pages.blocks import BulletPoints, Heading, Section, Text
from shared_model.pages.numbers import number, percent
from shared_model.pages.wording import Words


def describe_reading(content: RunContent, words: Words) -> Section:
    """In plain words, with this run's own base risk."""
    base = content.explanation.base_logit if content.explanation else None
    start = (
        words("reading.start_unknown")
        if base is None
        else words("reading.start", logit=number(base), risk=percent(1 / (1 + math.exp(-base))))
    )
    return Section(
        "reading",
        words("reading.title"),
        (
            Text(words("reading.is")),
            Text(start),
            Heading(words("reading.how")),
            BulletPoints(tuple(words.section("reading.points").values())),
            Heading(words("reading.not")),
            BulletPoints(tuple(words.section("reading.is_not").values())),
        ),
    )
