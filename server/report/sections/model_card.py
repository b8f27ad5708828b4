"""A model card: what the model is, for whom, from what, how good; what people must add is marked as theirs."""

from server.report.content import RunContent
from server.report.sections import facts
from shared_model.pages.blocks import Cell, Marked, Section, Table, Text
from shared_model.pages.wording import Words

_ROWS: tuple[tuple[str, facts.Fact | None], ...] = (
    ("study", facts.tell_title),
    ("kind", facts.tell_model),
    ("inputs", facts.tell_inputs),
    ("output", facts.tell_output),
    ("use", None),
    ("not_for", None),
    ("data", facts.tell_flow),
    ("hospitals", facts.tell_hospitals),
    ("quality", facts.tell_quality),
    ("missing", facts.tell_missing),
    ("performance", facts.tell_performance),
    ("spread", facts.tell_heterogeneity),
    ("looks_at", facts.tell_shares),
    ("subgroups", facts.tell_subgroups),
    ("ethics", None),
    ("contact", None),
    ("version", facts.tell_specification),
)


def describe_model_card(content: RunContent, words: Words) -> Section:
    """The card as a table."""
    theirs = Marked(words("card.theirs"), "unknown")
    rows: list[tuple[Cell, ...]] = []
    for key, fact in _ROWS:
        told = fact(content, words) if fact else ""
        rows.append((words(f"card.{key}"), told or theirs))
    limits = " ".join(filter(None, (words("card.warning"), facts.tell_limits(content, words))))
    rows.append((words("card.warning_title"), limits))
    return Section(
        "card",
        words("card.title"),
        (
            Text(words("card.intro")),
            Table(words("card.title"), (words("card.item"), words("card.content")), tuple(rows), "model-card"),
        ),
    )
