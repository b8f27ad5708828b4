"""One feature: its effect along its value, and how the patients' values spread."""

from itertools import pairwise

from server.run_folder.explanation import FeatureEntry, Histogram, ValueGroup
from shared_model.pages.blocks import Block, Cell, Figure, Folded, Table, Text
from shared_model.pages.escaping import figure_text
from shared_model.pages.numbers import SUPPRESSED, interval
from shared_model.pages.plots import BLUE, Trace, axis, layout
from shared_model.pages.wording import Words

MISSING_LEVEL, ALL_LEVEL = "missing", "all"


def label_group(group: ValueGroup, unit: str, words: Words) -> str:
    """What values a group holds, with the unit."""
    if group.range is not None:
        low, high = group.range
        unit = f" {unit}" if unit else ""
        if low is None:
            return words("values.below", high=f"{high:.4g}{unit}") if high is not None else words("values.all")
        if high is None:
            return words("values.from", low=f"{low:.4g}{unit}")
        return words("values.between", low=f"{low:.4g}", high=f"{high:.4g}{unit}")
    if group.level == MISSING_LEVEL:
        return words("values.missing")
    return words("values.all") if group.level in {ALL_LEVEL, None} else str(group.level)


def describe_feature(name: str, entry: FeatureEntry, words: Words) -> Folded:
    """All that is known of one feature.

    Args:
        name: for ids, unique in the page.
        entry: the feature.
        words: of the report.
    """
    size = "" if entry.mean_abs is None else f"{entry.mean_abs:.3g}"
    ends = interval(entry.mean_abs_ci, digits=4)
    blocks: list[Block] = [Text(words("dependence.size", size=size, ci=ends))]
    if not entry.groups:
        blocks.append(Text(words("dependence.no_groups")))
    else:
        blocks.append(_draw_dependence(name, entry, words))
    if entry.histogram is None:
        blocks.append(Text(words("dependence.no_histogram")))
    else:
        blocks.append(_histogram_table(name, entry, entry.histogram, words))
    title = f"{entry.name} ({entry.unit})" if entry.unit else entry.name
    return Folded(title, tuple(blocks))


def _draw_dependence(name: str, entry: FeatureEntry, words: Words) -> Figure:
    labels = [label_group(group, "", words) for group in entry.groups]
    known = [(g, group) for g, group in enumerate(entry.groups) if not group.suppressed and group.mean_phi is not None]
    trace: Trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [g for g, _ in known],
        "y": [group.mean_phi for _, group in known],
        "error_y": {
            "type": "data",
            "array": [group.sd_phi or 0.0 for _, group in known],
            "color": BLUE,
            "thickness": 1.2,
            "width": 3,
        },
        "marker": {"color": BLUE, "size": 9},
        "hovertemplate": "%{y:.3~g}<extra></extra>",
    }
    hidden = [g for g, group in enumerate(entry.groups) if group.suppressed]
    shapes = [
        {"type": "rect", "x0": g - 0.5, "x1": g + 0.5, "yref": "paper", "y0": 0, "y1": 1, "layer": "below", **_SHADE}
        for g in hidden
    ]
    title = f"{entry.name} ({entry.unit})" if entry.unit else entry.name
    x = axis(
        figure_text(title),
        tickmode="array",
        tickvals=list(range(len(labels))),
        ticktext=[figure_text(label, longest=18) for label in labels],
        range=[-0.5, len(labels) - 0.5],
        showgrid=False,
        zeroline=False,
    )
    return Figure(
        name=f"dependence-{name}",
        title=words("dependence.title", name=entry.name),
        alt=words("dependence.alt", name=entry.name, n=len(known), hidden=len(hidden)),
        caption=words("dependence.caption"),
        data=[trace],
        layout=layout(x, axis(words("features.phi_axis"), zeroline=True), shapes=shapes, showlegend=False),
        table=Table(
            caption=words("dependence.title", name=entry.name),
            columns=tuple(words(f"features.{key}") for key in ("value", "n", "mean_phi", "sd_phi")),
            rows=tuple(_row(group, entry.unit, words) for group in entry.groups),
            name=f"dependence-{name}",
        ),
        height=300,
    )


_SHADE: Trace = {"fillcolor": "var(--line)", "opacity": 0.55, "line": {"width": 0}}


def _row(group: ValueGroup, unit: str, words: Words) -> tuple[Cell, ...]:
    label = label_group(group, unit, words)
    if group.suppressed:
        return (label, SUPPRESSED, SUPPRESSED, SUPPRESSED)
    return (label, group.n, group.mean_phi, group.sd_phi)


def _histogram_table(name: str, entry: FeatureEntry, histogram: Histogram, words: Words) -> Folded:
    """Patients by value and effect."""
    edges = histogram.phi_edges
    columns = [words("values.below", high=f"{edges[0]:g}")] if edges else [words("values.all")]
    columns += [words("values.between", low=f"{low:g}", high=f"{high:g}") for low, high in pairwise(edges)]
    if edges:
        columns.append(words("values.from", low=f"{edges[-1]:g}"))
    labels = [label_group(entry.groups[g], entry.unit, words) for g in histogram.groups]
    table = Table(
        caption=words("dependence.histogram"),
        columns=(words("dependence.histogram_corner"), *columns),
        rows=tuple((label, *counts) for label, counts in zip(labels, histogram.counts, strict=True)),
        name=f"histogram-{name}",
    )
    return Folded(words("dependence.histogram_title"), (Text(words("dependence.histogram_note")), table))
