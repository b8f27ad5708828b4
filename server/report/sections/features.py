"""The features inside each modality: size and direction, effect along the value, spread of the patients' values."""

from collections.abc import Sequence

from server.report.content import RunContent
from server.report.sections.dependence import describe_feature, label_group
from server.run_folder.explanation import PRESENCE, Explanation, FeatureEntry, ValueGroup
from shared_model.pages.blocks import Block, Cell, Figure, Folded, Heading, Notice, Section, Table, Text
from shared_model.pages.escaping import figure_text
from shared_model.pages.numbers import SUPPRESSED
from shared_model.pages.plots import (
    GRAY,
    INK,
    LOW_TO_HIGH,
    ROW_HEIGHT,
    Trace,
    axis,
    layout,
    name_axis,
    points_with_intervals,
    rows_height,
)
from shared_model.pages.wording import Words

SHOWN = 15  # features in an overview; the table and the folded parts hold all
_LARGEST_DOT, _SMALLEST_DOT = 22.0, 5.0


def describe_features(content: RunContent, words: Words) -> Section:
    """Per modality an overview and, folded, every feature."""
    title = words("features.title")
    explanation = content.explanation
    if explanation is None or explanation.suppressed or not explanation.features:
        reason = "features.suppressed" if explanation is not None and _asked(content) else "features.none"
        return Section("features", title, (Text(words("report.folds_apart" if content.folds else reason)),))
    blocks: list[Block] = [Text(words("features.intro"))]
    if explanation.n and explanation.feature_patients and explanation.feature_patients < explanation.n:
        blocks.append(Text(words("features.sample", m=explanation.feature_patients, n=explanation.n)))
    order = [(name, entry) for name, entry in explanation.by_share() if name in explanation.features]
    widest = _widest(explanation)
    for i, (modality, entry) in enumerate(order):
        blocks.append(Heading(modality))
        entries = explanation.features[modality]
        if entries is None:
            blocks.append(Notice(words("features.modality_suppressed")))
            continue
        if entry.is_unused:
            blocks.append(Notice(words("features.unused", name=modality)))
        blocks.extend(_describe_modality(i, modality, entries, words, widest=widest))
    return Section("features", title, tuple(blocks))


def _widest(explanation: Explanation) -> float:
    """End of the axis of sizes, the same for all modalities: else the weakest looks as strong as the strongest."""
    entries = [entry for entries in explanation.features.values() for entry in entries or ()]
    ends = [entry.mean_abs_ci[1] for entry in entries if entry.mean_abs_ci is not None]
    return 1.05 * max([0.0, *(entry.mean_abs or 0.0 for entry in entries), *(end or 0.0 for end in ends)])


def _asked(content: RunContent) -> bool:
    return content.config is not None and content.config.settings.get("explain") == "features"


def _describe_modality(
    i: int, modality: str, entries: Sequence[FeatureEntry], words: Words, *, widest: float
) -> list[Block]:
    presence = [entry for entry in entries if entry.name == PRESENCE]
    features = [entry for entry in entries if entry.name != PRESENCE]
    shown = [entry for entry in features if not entry.suppressed and entry.mean_abs is not None]
    hidden = [entry.name for entry in features if entry.suppressed]
    blocks: list[Block] = []
    if shown:
        blocks.append(_draw_sizes(i, modality, shown, words, widest=widest))
        top = shown[:SHOWN]
        if any(_known_groups(entry) for entry in top):
            blocks.append(_draw_values(i, modality, top, words))
        without = [entry.name for entry in top if not _known_groups(entry)]
        if without:
            blocks.append(Notice(words("features.values_hidden", n=len(without), names=", ".join(without))))
        blocks.append(
            Folded(
                words("features.each", modality=modality, n=len(shown)),
                tuple(describe_feature(f"{i}-{j}", entry, words) for j, entry in enumerate(shown)),
            )
        )
    n_partial = sum(entry.hidden_values for entry in shown)
    if n_partial:
        blocks.append(Text(words("features.hidden_values", n=n_partial, of=len(shown))))
    if hidden:
        blocks.append(Text(words("features.hidden", n=len(hidden), names=", ".join(hidden))))
    blocks.extend(Text(_describe_presence(entry, words)) for entry in presence)
    return blocks


def _describe_presence(entry: FeatureEntry, words: Words) -> str:
    if entry.suppressed or entry.mean_abs is None:
        return words("features.presence_suppressed")
    if not entry.mean_abs:
        return words("features.no_presence")
    return words("features.presence", size=f"{entry.mean_abs:.3g}")


def _draw_sizes(i: int, modality: str, shown: Sequence[FeatureEntry], words: Words, *, widest: float) -> Figure:
    top = shown[:SHOWN]
    names = [_with_unit(entry) for entry in top]
    points = points_with_intervals(
        words("features.size"),
        list(range(len(top))),
        [entry.mean_abs for entry in top],
        [entry.mean_abs_ci for entry in top],
        series=0,
    )
    largest = ", ".join(entry.name for entry in top[:3])
    return Figure(
        name=f"sizes-{i}",
        title=words("features.sizes_title", modality=modality),
        alt=words("features.sizes_alt", modality=modality, n=len(top), largest=largest),
        caption=words("features.sizes_caption", n=len(top), of=len(shown)),
        data=[points],
        layout=layout(axis(words("features.size_axis"), range=[0, widest or 1]), name_axis(names), showlegend=False),
        table=Table(
            caption=words("features.sizes_title", modality=modality),
            columns=tuple(words(f"features.{key}") for key in _SIZE_COLUMNS),
            rows=tuple(_size_row(entry, words) for entry in shown),
            name=f"features-{modality}",
        ),
        height=rows_height(len(top)) - ROW_HEIGHT,
    )


_SIZE_COLUMNS = ("feature", "unit", "n", "size", "ci", "mean_phi", "direction", "correlation", "se_sampling")


def _size_row(entry: FeatureEntry, words: Words) -> tuple[Cell, ...]:
    ends = entry.mean_abs_ci
    return (
        entry.name,
        entry.unit or words("features.no_unit"),
        entry.n,
        entry.mean_abs,
        None if ends is None or None in ends else f"{ends[0]:.4g} to {ends[1]:.4g}",
        entry.mean_phi,
        _describe_direction(entry.correlation, words),
        entry.correlation,
        entry.se_sampling,
    )


def _describe_direction(correlation: float | None, words: Words) -> str:
    """In which direction a higher value moves the risk."""
    if correlation is None:
        return words("features.no_direction")
    if abs(correlation) < 0.3:
        return words("features.mixed")
    return words("features.raises" if correlation > 0 else "features.lowers")


def _with_unit(entry: FeatureEntry) -> str:
    return f"{entry.name} ({entry.unit})" if entry.unit else entry.name


def _say_suppressed(entry: FeatureEntry, words: Words) -> str:
    return words("features.row_suppressed", name=entry.name)


def _known_groups(entry: FeatureEntry) -> list[tuple[int, ValueGroup]]:
    return [(g, group) for g, group in enumerate(entry.groups) if not group.suppressed and group.mean_phi is not None]


def _draw_values(i: int, modality: str, entries: Sequence[FeatureEntry], words: Words) -> Figure:
    """Each dot is a group of patients with similar values, at its mean effect; size by patients, colour by value."""
    ordered, unordered = _Dots(), _Dots()
    for row, entry in enumerate(entries):
        known = _known_groups(entry)
        sizes = [group.n for _, group in known if group.n is not None]
        for g, group in known:
            place = _place_of(entry, g)
            dots = unordered if place is None else ordered
            dots.add(row, group, place, largest=max(sizes, default=1), label=label_group(group, entry.unit, words))
    traces = [
        dots.trace(name, words, coloured=coloured)
        for dots, name, coloured in (
            (ordered, words("features.ordered"), True),
            (unordered, words("features.unordered"), False),
        )
        if dots.x
    ]
    names = [_with_unit(entry) if _known_groups(entry) else _say_suppressed(entry, words) for entry in entries]
    return Figure(
        name=f"values-{i}",
        title=words("features.values_title", modality=modality),
        alt=words("features.values_alt", modality=modality, n=len(entries)),
        caption=words("features.values_caption"),
        data=traces,
        layout=layout(axis(words("features.phi_axis"), zeroline=True), name_axis(names), showlegend=len(traces) > 1),
        table=Table(
            caption=words("features.values_title", modality=modality),
            columns=tuple(words(f"features.{key}") for key in ("feature", "value", "n", "mean_phi", "sd_phi")),
            rows=tuple(row for entry in entries for row in _value_rows(entry, words)),
            name=f"values-{modality}",
        ),
        height=rows_height(len(entries)),
    )


def _value_rows(entry: FeatureEntry, words: Words) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    if not entry.groups:
        rows.append((entry.name, words("features.all_values"), SUPPRESSED, SUPPRESSED, SUPPRESSED))
    for group in entry.groups:
        label = label_group(group, entry.unit, words)
        if group.suppressed:
            rows.append((entry.name, label, SUPPRESSED, SUPPRESSED, SUPPRESSED))
        else:
            rows.append((entry.name, label, group.n, group.mean_phi, group.sd_phi))
    return rows


def _place_of(entry: FeatureEntry, g: int) -> float | None:
    """Where a group lies between the lowest (0) and the highest value (1); None for missing values and categories."""
    group = entry.groups[g]
    ranges = [k for k, other in enumerate(entry.groups) if other.range is not None]
    if group.range is not None:
        return ranges.index(g) / max(len(ranges) - 1, 1)
    levels = {other.level for other in entry.groups} - {"missing"}
    return float(group.level == "1") if levels == {"0", "1"} and group.level in levels else None


class _Dots:
    """Dots of one trace."""

    def __init__(self) -> None:
        self.x: list[float] = []
        self._y: list[int] = []
        self._places: list[float] = []
        self._sizes: list[float] = []
        self._spread: list[float] = []
        self._labels: list[str] = []

    def add(self, row: int, group: ValueGroup, place: float | None, *, largest: int, label: str) -> None:
        """A group of patients at its mean effect."""
        part = 0.4 if group.n is None else group.n / max(largest, 1)
        self.x.append(group.mean_phi or 0.0)
        self._y.append(row)
        self._places.append(0.5 if place is None else place)
        self._sizes.append(_SMALLEST_DOT + (_LARGEST_DOT - _SMALLEST_DOT) * part**0.5)
        self._spread.append(group.sd_phi or 0.0)
        self._labels.append(figure_text(label))

    def trace(self, name: str, words: Words, *, coloured: bool) -> Trace:
        """As plotly draws it."""
        marker: Trace = {"size": self._sizes, "opacity": 0.85, "line": {"width": 1, "color": "var(--surface)"}}
        if coloured:
            marker |= {"color": self._places, "cmin": 0, "cmax": 1, "colorscale": LOW_TO_HIGH}
            ends = [words("features.low"), words("features.high")]
            marker |= {"showscale": True, "colorbar": _COLOUR_BAR | {"ticktext": ends}}
        else:
            marker |= {"color": GRAY, "symbol": "diamond"}
        return {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": self.x,
            "y": self._y,
            "text": self._labels,
            "hovertemplate": "%{text}: %{x:.3~g}<extra></extra>",
            "marker": marker,
            "error_x": {"type": "data", "array": self._spread, "color": GRAY, "thickness": 1, "width": 0},
        }


_COLOUR_BAR: Trace = {
    "tickvals": [0, 1],
    "thickness": 10,
    "len": 0.8,
    "outlinewidth": 0,
    "tickfont": {"color": INK},
}
