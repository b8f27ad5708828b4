"""Shares in groups of patients, and how they moved while the model was trained."""

from collections.abc import Mapping

from server.report.content import RunContent
from server.report.sections.dependence import MISSING_LEVEL
from server.run_folder.explanation import Explanation, GroupEntry
from shared_model.pages.blocks import Block, Cell, Figure, Section, Table, Text
from shared_model.pages.numbers import SUPPRESSED, percent, percent_interval
from shared_model.pages.plots import SERIES, axis, layout, line, name_axis, points_with_intervals, rows_height
from shared_model.pages.wording import Words

OUTCOME = "outcome"  # of shared_model.shapley.strata, which takes torch with it
MOST_SERIES = len(SERIES)


def describe_groups(content: RunContent, words: Words) -> Section:
    """Strata: a figure a variable."""
    title = words("groups.title")
    explanation = content.explanation
    if explanation is None or not explanation.strata:
        return Section("groups", title, (Text(words("report.folds_apart" if content.folds else "groups.none")),))
    if explanation.is_single:
        return Section("groups", title, (Text(words("first.shares_single")),))
    blocks: list[Block] = [Text(words("groups.intro"))]
    unused = [name for name, entry in explanation.by_share() if entry.is_unused]
    if unused:
        blocks.append(Text(words("groups.unused", names=", ".join(unused))))
    for i, (variable, groups) in enumerate(explanation.strata.items()):
        labels = _labels(variable, groups, content, words)
        blocks.append(_describe_variable(i, variable, labels, groups, explanation, words))
    return Section("groups", title, tuple(blocks))


def _labels(
    variable: str, groups: Mapping[str, GroupEntry | None], content: RunContent, words: Words
) -> dict[str, str]:
    """Groups as they are named: 0 and 1 are no and yes only where the schema says so."""
    columns = content.config.schema_.static if content.config else ()
    yes_or_no = {OUTCOME, *(column.name for column in columns if column.kind == "binary")}
    known = {MISSING_LEVEL: words("values.missing")}
    if variable in yes_or_no:
        known |= {"0": words("groups.no"), "1": words("groups.yes")}
    return {label: known.get(label, label) for label in groups}


def _describe_variable(
    i: int,
    variable: str,
    labels: Mapping[str, str],
    groups: Mapping[str, GroupEntry | None],
    explanation: Explanation,
    words: Words,
) -> Block:
    modalities = [name for name, entry in explanation.by_share() if not entry.is_unused]
    shown = [(label, row) for label, row in groups.items() if row is not None]
    table = Table(
        caption=words("groups.variable", name=variable),
        columns=(
            *(words(f"groups.{key}") for key in ("group", "n", "events")),
            *(words(f"groups.{key}", name=name) for name in modalities for key in ("share_of", "ci_of")),
        ),
        rows=tuple(_row(labels[label], row, modalities) for label, row in groups.items()),
        name=f"groups-{i}",
    )
    if not shown:
        return table
    drawn = modalities[:MOST_SERIES]
    step = 0.6 / max(len(drawn), 1)
    traces = [
        points_with_intervals(
            name,
            [row - 0.3 + step * (m + 0.5) for row in range(len(shown))],
            [group.modalities[name].share if name in group.modalities else None for _, group in shown],
            [group.modalities[name].share_ci if name in group.modalities else None for _, group in shown],
            series=m,
        )
        for m, name in enumerate(drawn)
    ]
    return Figure(
        name=f"groups-{i}",
        title=words("groups.variable", name=variable),
        alt=words("groups.alt", name=variable, n=len(shown), hidden=len(groups) - len(shown)),
        caption=words("groups.caption"),
        data=traces,
        layout=layout(
            axis(words("importance.share_axis"), tickformat=".0%", rangemode="tozero"),
            name_axis([labels[label] for label, _ in shown]),
        ),
        table=table,
        height=rows_height(len(shown)) + 8 * len(drawn) * len(shown),
    )


def _row(label: str, group: GroupEntry | None, modalities: list[str]) -> tuple[Cell, ...]:
    if group is None:
        return (label, *([SUPPRESSED] * (2 + 2 * len(modalities))))
    cells: list[Cell] = [label, group.n, group.events]
    for name in modalities:
        entry = group.modalities.get(name)
        cells += [percent(entry.share if entry else None), percent_interval(entry.share_ci if entry else None)]
    return tuple(cells)


def describe_drift(content: RunContent, words: Words) -> Section:
    """Shares of all hospitals after the rounds that were explained."""
    title = words("drift.title")
    explained = [(one.round, one.explanation.shares) for one in content.rounds if one.explanation is not None]
    if not explained:
        return Section("drift", title, (Text(words(_why_no_drift(content))),))
    shown = [(number, shares) for number, shares in explained if shares is not None]
    if not shown:
        return Section("drift", title, (Text(words("drift.suppressed")),))
    names = list(shown[-1][1])
    if len(names) == 1:
        return Section("drift", title, (Text(words("first.shares_single")),))
    numbers = [number for number, _ in shown]
    dashes = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
    figure = Figure(
        name="drift",
        title=words("drift.figure"),
        alt=words("drift.alt", n=len(shown), first=numbers[0], last=numbers[-1]),
        caption=words("drift.caption"),
        data=[
            line(name, numbers, [shares.get(name) for _, shares in shown], series=i, dash=dashes[i])
            for i, name in enumerate(names[:MOST_SERIES])
        ],
        layout=layout(
            axis(words("training.round"), zeroline=False, showgrid=False),
            axis(words("importance.share_axis"), tickformat=".0%", rangemode="tozero"),
        ),
        table=Table(
            caption=words("drift.figure"),
            columns=(words("training.round"), *names),
            rows=tuple((str(number), *(percent(shares.get(name)) for name in names)) for number, shares in shown),
            name="drift",
        ),
        height=300,
    )
    blocks: list[Block] = [figure]
    if content.explanation is not None and content.explanation.drift:
        blocks.append(_distance_table(content.explanation, words))
    return Section("drift", title, tuple(blocks))


def _why_no_drift(content: RunContent) -> str:
    if content.folds:
        return "report.folds_apart"
    return "importance.none" if content.explanation is None else "drift.none"


def _distance_table(explanation: Explanation, words: Words) -> Table:
    return Table(
        caption=words("drift.distances"),
        columns=tuple(
            words(f"drift.{key}") for key in ("from", "to", "group", "l1", "rank_correlation", "top_overlap")
        ),
        rows=tuple(
            (str(step.from_), str(step.to), group, one.l1, one.rank_correlation, one.top_overlap)
            for step in explanation.drift
            for group, one in step.groups.items()
        ),
        name="drift-distances",
    )
