"""The TRIPOD+AI checklist: 27 items; what the run tells is filled in, the rest is marked as the authors'.

Source: Collins et al. 2024, BMJ 385:e078378; the items' texts are shortened in english.toml.
"""

from collections.abc import Mapping

from server.report.content import RunContent
from server.report.sections import facts
from shared_model.pages.blocks import Cell, Marked, Section, Table, Text
from shared_model.pages.wording import Words

# Nothing of an item that is missing here is known to the run.
_TOLD: Mapping[str, tuple[facts.Fact, ...]] = {
    "1": (facts.tell_title,),
    "5a": (facts.tell_split,),
    "6a": (facts.tell_hospitals,),
    "7": (facts.tell_preprocessing, facts.tell_quality),
    "8a": (facts.tell_title,),
    "9b": (facts.tell_inputs,),
    "10": (facts.tell_flow,),
    "11": (facts.tell_missing,),
    "12a": (facts.tell_split,),
    "12b": (facts.tell_preprocessing,),
    "12c": (facts.tell_model,),
    "12d": (facts.tell_heterogeneity,),
    "12e": (facts.tell_measures,),
    "12g": (facts.tell_specification,),
    "13": (facts.tell_balance,),
    "14": (facts.tell_subgroups,),
    "15": (facts.tell_output,),
    "18f": (facts.tell_code,),
    "20a": (facts.tell_flow,),
    "21": (facts.tell_flow,),
    "22": (facts.tell_specification,),
    "23a": (facts.tell_performance,),
    "23b": (facts.tell_spread_of_performance,),
    "25": (facts.tell_shares,),
    "26": (facts.tell_limits,),
}
_WHOLE = frozenset({"12e", "15", "21"})  # the run tells all that the item asks
_OF_THE_TEST = frozenset({"12e", "21"})  # of them, those that ask for the test part too, which may be suppressed


def describe_tripod(content: RunContent, words: Words) -> Section:
    """One row an item, or a part of it."""
    rows: list[tuple[Cell, ...]] = []
    for item in words.rows("tripod.items"):
        told = " ".join(filter(None, (fact(content, words) for fact in _TOLD.get(item["item"], ()))))
        rows.append(
            (item["item"], item["topic"], item["asks"], _status(item["item"], told, content, words), told or None)
        )
    known = sum(1 for row in rows if row[-1] is not None)
    return Section(
        "tripod",
        words("tripod.title"),
        (
            Text(words("tripod.intro", known=known, of=len(rows))),
            Table(
                caption=words("tripod.title"),
                columns=tuple(words(f"tripod.{key}") for key in ("item", "topic", "asks", "by", "told")),
                rows=tuple((*row[:-1], row[-1] or words("tripod.empty")) for row in rows),
                name="tripod-ai",
            ),
        ),
    )


def _status(item: str, told: str, content: RunContent, words: Words) -> Marked:
    if not told:
        return Marked(words("tripod.authors"), "unknown")
    has_test = content.test is not None and content.test.pooled is not None
    is_known = (has_test or item not in _OF_THE_TEST) and (item != "21" or content.training_counts() is not None)
    is_whole = item in _WHOLE and is_known
    return Marked(words("tripod.run"), "good") if is_whole else Marked(words("tripod.both"), "amber")
