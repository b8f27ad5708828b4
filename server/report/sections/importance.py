"""Importance of the modalities: shares, their spread between hospitals, interactions."""

from collections.abc import Mapping

from server.report.content import RunContent
from server.report.shares import tell_interval_meaning, tell_modality, tell_range, tell_share
from server.run_folder.explanation import FEWEST_PREDICTING, Explanation, GroupEntry, ModalityEntry
from shared_model.pages.blocks import Block, Cell, Figure, Folded, Notice, Section, Table, Text
from shared_model.pages.numbers import SUPPRESSED, number, percent, percent_interval
from shared_model.pages.plots import Trace, axis, layout, name_axis, points_with_intervals, rows_height
from shared_model.pages.wording import Words

_OFFSET = 0.17  # rows above and below a name


def describe_importance(content: RunContent, words: Words) -> Section:
    """Shares with intervals, forest plots, interactions."""
    title = words("importance.title")
    explanation = content.explanation
    if explanation is None:
        return Section(
            "importance", title, (Text(words("report.folds_apart" if content.folds else "importance.none")),)
        )
    if explanation.suppressed:
        return Section("importance", title, (Notice(words("importance.suppressed")),))
    if explanation.uses_nothing:
        return Section("importance", title, (Notice(words("first.shares_unused")),))
    if explanation.is_single:
        sizes = Folded(words("importance.more"), (_detail_table(explanation, words, keys=_SIZES),))
        return Section("importance", title, (Notice(words("first.shares_single")), sizes))
    blocks: list[Block] = [
        Text(words("importance.intro")),
        Notice(tell_interval_meaning(explanation, words)),
        _draw_shares(explanation, words),
        Folded(words("importance.more"), (_detail_table(explanation, words, keys=(*_SHARES, *_SIZES)),)),
        *_describe_spread(explanation, words),
        *_describe_interactions(explanation, words),
    ]
    return Section("importance", title, tuple(blocks))


def _draw_shares(explanation: Explanation, words: Words) -> Figure:
    ordered = explanation.by_share()
    names = [name for name, _ in ordered]
    rows = range(len(names))
    traces = [
        points_with_intervals(
            words("importance.share"),
            [row - _OFFSET for row in rows],
            [entry.share for _, entry in ordered],
            [None if entry.is_unused else entry.share_range for _, entry in ordered],
            series=0,
        )
    ]
    has_spread = any(entry.next_hospital is not None for _, entry in ordered)
    if has_spread:
        traces.append(
            points_with_intervals(
                words("importance.next"),
                [row + _OFFSET for row in rows],
                [entry.site_mean if entry.next_hospital else None for _, entry in ordered],
                [entry.next_hospital for _, entry in ordered],
                series=1,
            )
        )
    told = "; ".join(tell_modality(name, entry, words) for name, entry in ordered)
    return Figure(
        name="shares",
        title=words("importance.shares_title"),
        alt=words("importance.shares_alt", told=told),
        caption=words("importance.shares_caption" if has_spread else "importance.shares_caption_no_spread"),
        data=traces,
        layout=layout(_share_axis(words), name_axis(names)),
        table=Table(
            caption=words("importance.shares_title"),
            columns=tuple(words(f"importance.{key}") for key in _SHARE_COLUMNS),
            rows=tuple(_share_row(name, entry, words) for name, entry in ordered),
            name="shares",
        ),
        height=rows_height(len(names)) + 12 * len(names),
    )


_SHARE_COLUMNS = (
    "modality",
    "share",
    "share_range",
    "share_ci",
    "site_mean",
    "site_mean_ci",
    "prediction_interval",
    "tau",
    "i2",
)


def _share_row(name: str, entry: ModalityEntry, words: Words) -> tuple[Cell, ...]:
    """A modality that is not used has no other number: zeros with zeros around them look like certainty."""
    if entry.is_unused:
        return (name, tell_share(entry, words), tell_range(entry, words), *("",) * (len(_SHARE_COLUMNS) - 3))
    few = entry.hospitals is not None and entry.hospitals < FEWEST_PREDICTING
    return (
        name,
        tell_share(entry, words),
        tell_range(entry, words) or words("shares.no_range"),
        percent_interval(entry.share_ci),
        percent(entry.site_mean),
        percent_interval(entry.site_mean_ci),
        words("shares.few_hospitals", n=FEWEST_PREDICTING) if few else percent_interval(entry.next_hospital),
        percent(entry.tau),
        percent(entry.i2, digits=0),
    )


def _share_axis(words: Words) -> Trace:
    return axis(words("importance.share_axis"), tickformat=".0%", zeroline=True, rangemode="tozero")


_SHARES = ("mean_local_share", "mean_local_share_ci", "share_present")
_SIZES = ("mean_abs", "mean_abs_ci", "alone", "left_out", "se_background", "n_present")


def _detail_table(explanation: Explanation, words: Words, *, keys: tuple[str, ...]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, entry in explanation.by_share():
        ends = entry.mean_abs_ci
        cells: dict[str, Cell] = {
            "mean_local_share": percent(entry.mean_local_share),
            "mean_local_share_ci": percent_interval(entry.mean_local_share_ci),
            "share_present": percent(entry.share_present),
            "mean_abs": entry.mean_abs,
            "mean_abs_ci": None if ends is None or None in ends else f"{ends[0]:.4g} to {ends[1]:.4g}",
            "alone": entry.alone,
            "left_out": entry.left_out,
            "se_background": entry.se_background,
            "n_present": entry.n_present,
        }
        rows.append((name, *(cells[key] for key in keys)))
    return Table(
        caption=words("importance.more"),
        columns=(words("importance.modality"), *(words(f"importance.{key}") for key in keys)),
        rows=tuple(rows),
        name="modalities",
    )


def _describe_spread(explanation: Explanation, words: Words) -> list[Block]:
    """A forest plot per modality, with the hospitals that released their row."""
    shown = {site: row for site, row in explanation.sites.items() if row is not None}
    hidden = len(explanation.sites) - len(shown)
    blocks: list[Block] = []
    figures = [
        _draw_forest(order, name, entry, shown, explanation.sites, words)
        for order, (name, entry) in enumerate(explanation.by_share())
        if entry.share is not None and not entry.is_unused
    ]
    if not shown or not figures:
        return [Text(words("importance.forest_none"))]
    blocks.append(figures[0])
    if len(figures) > 1:
        blocks.append(Folded(words("importance.forest_others"), tuple(figures[1:])))
    if hidden:
        blocks.append(Text(words("importance.forest_hidden", n=hidden)))
    return blocks


def _draw_forest(
    order: int,
    name: str,
    entry: ModalityEntry,
    shown: Mapping[str, GroupEntry],
    sites: Mapping[str, GroupEntry | None],
    words: Words,
) -> Figure:
    lines = {words("importance.all_patients"): (entry.share, entry.share_ci)}
    lines |= {site: _of(row, name) for site, row in shown.items()}
    if entry.next_hospital is not None:
        lines[words("importance.mean_hospital")] = (entry.site_mean, entry.site_mean_ci)
        lines[words("importance.next_hospital")] = (entry.site_mean, entry.next_hospital)
    own = points_with_intervals(
        name,
        list(range(len(lines))),
        [value for value, _ in lines.values()],
        [ends for _, ends in lines.values()],
        series=0,
    )
    table_rows: list[tuple[Cell, ...]] = [
        (line, percent(value), percent_interval(ends)) for line, (value, ends) in lines.items()
    ]
    table_rows += [(site, SUPPRESSED, SUPPRESSED) for site, row in sites.items() if row is None]
    i2 = percent(entry.i2, digits=0)
    return Figure(
        name=f"forest-{order}",
        title=words("importance.forest_title", name=name),
        alt=words("importance.forest_alt", name=name, n=len(shown), share=percent(entry.share), i2=i2),
        caption=words("importance.forest_caption", i2=i2),
        data=[own],
        layout=layout(_share_axis(words), name_axis(list(lines)), showlegend=False),
        table=Table(
            caption=words("importance.forest_title", name=name),
            columns=tuple(words(f"importance.{key}") for key in ("hospital", "share", "ci")),
            rows=tuple(table_rows),
            name="forest",
        ),
        height=rows_height(len(lines)) - 30,
    )


def _of(row: GroupEntry, name: str) -> tuple[float | None, tuple[float | None, float | None] | None]:
    entry = row.modalities.get(name)
    return (None, None) if entry is None else (entry.share, entry.share_ci)


def _describe_interactions(explanation: Explanation, words: Words) -> list[Block]:
    blocks: list[Block] = []
    pairs = explanation.interactions
    if not pairs:
        return blocks
    if not any(pair.mean_abs for pair in pairs):
        return [Text(words("importance.no_interactions"))]
    names = [words("importance.pair_of", first=pair.modalities[0], second=pair.modalities[1]) for pair in pairs]
    table = Table(
        caption=words("importance.interactions_title"),
        columns=tuple(words(f"importance.{key}") for key in ("pair", "mean_abs", "mean")),
        rows=tuple((name, pair.mean_abs, pair.mean) for name, pair in zip(names, pairs, strict=True)),
        name="interactions",
    )
    sizes = points_with_intervals(
        words("importance.size"),
        list(range(len(pairs))),
        [pair.mean_abs for pair in pairs],
        [None] * len(pairs),
        series=0,
    )
    means = points_with_intervals(
        words("importance.mean"), list(range(len(pairs))), [pair.mean for pair in pairs], [None] * len(pairs), series=1
    )
    largest = words("importance.largest", pair=names[0], size=number(pairs[0].mean_abs, digits=3))
    blocks.append(
        Figure(
            name="interactions",
            title=words("importance.interactions_title"),
            alt=words("importance.interactions_alt", n=len(pairs)) + " " + largest,
            caption=words("importance.interactions_caption"),
            data=[sizes, means],
            layout=layout(axis(words("importance.log_odds")), name_axis(names)),
            table=table,
            height=rows_height(len(pairs)),
        )
    )
    return blocks
