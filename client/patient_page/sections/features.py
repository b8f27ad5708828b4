"""The largest features: from the reference patients' mean to the patient's risk, and every feature as a table."""

import itertools

from client.patient_page.content import Explained, View
from client.patient_page.effects import Scale
from client.patient_page.figures import LOWERS, NEITHER, RAISES, padded, risk_axis, risk_of, row_label
from client.patient_page.sections.modalities import list_views
from client.patient_page.waterfall import PER_UNIT, Step, Waterfall, build_waterfall, list_steps, show_step
from shared_model.pages.blocks import Block, Cell, Figure, Folded, Grid, Section, Table, Text
from shared_model.pages.escaping import figure_text
from shared_model.pages.numbers import percent
from shared_model.pages.plots import INK, Trace, layout, name_axis, rows_height
from shared_model.pages.wording import Words

_ROOM = 0.9  # of the steps' width, at each end: numbers beside the bars have room on a narrow page as well


def describe_features(explained: Explained, words: Words) -> Section:
    """Waterfalls against both backgrounds side by side, then all features."""
    views = list_views(explained)
    blocks: list[Block] = [
        Text(words("features.intro")),
        Text(words("scale.intro", **Scale.of(explained).tell())),
        Grid(tuple(_draw(explained, name, view, words) for name, view in views)),
        *(Folded(words(f"features.all_{name}"), (_list_all(name, view, words),)) for name, view in views),
    ]
    return Section("features", words("features.title"), tuple(blocks))


def _draw(explained: Explained, name: str, view: View, words: Words) -> Figure:
    fall = build_waterfall(explained, view, words)
    levels = fall.levels()
    steps = (*fall.shown, fall.rest)
    labels = [
        words("features.base"),
        *((row_label(step.label, step.value) if step.value else step.label) for step in fall.steps),
        words("features.rest", n=fall.n_rest),
        words("features.end"),
    ]
    low, high = padded(levels, part=_ROOM)
    base, end = percent(risk_of(view.base_logit)), percent(explained.prediction.probability)
    told = "; ".join(f"{step.label} {show_step(shown)}" for step, shown in zip(fall.steps, fall.shown, strict=True))
    return Figure(
        name=f"waterfall-{name}",
        title=words(f"features.figure_{name}"),
        alt=words("features.alt", base=base, end=end, told=told, rest=show_step(fall.rest)),
        caption=words(f"features.caption_{name}", n=view.rows, base=base, mean=percent(view.base_probability)),
        data=[_bars(steps, levels, Scale.of(explained)), _ends(levels, base, end)],
        layout=layout(risk_axis(words("features.axis"), low, high), name_axis(labels), showlegend=False, bargap=0.3),
        table=_table(name, fall, words, base=base, end=end),
        height=rows_height(len(labels)) - 24,
    )


def _bars(steps: tuple[int, ...], levels: list[float], scale: Scale) -> Trace:
    return {
        "type": "bar",
        "orientation": "h",
        "y": list(range(1, len(steps) + 1)),
        "base": levels[:-1],
        "x": [after - before for before, after in itertools.pairwise(levels)],
        "text": [show_step(step) for step in steps],
        "textposition": "outside",
        "textangle": 0,
        "cliponaxis": False,
        "constraintext": "none",
        "textfont": {"color": INK},
        "marker": {"color": [_colour(step, scale) for step in steps]},
        "hovertemplate": "%{text}<extra></extra>",
    }


def _colour(step: int, scale: Scale) -> str:
    if not scale.has_effect(step / PER_UNIT):
        return NEITHER
    return RAISES if step > 0 else LOWERS


def _ends(levels: list[float], base: str, end: str) -> Trace:
    """Where it begins and ends: the mean of the reference patients, and the patient."""
    return {
        "type": "scatter",
        "mode": "markers+text",
        "y": [0, len(levels)],
        "x": [levels[0], levels[-1]],
        "text": [figure_text(base), figure_text(end)],
        "textposition": "middle right",
        "cliponaxis": False,
        "marker": {"symbol": "diamond", "size": 10, "color": INK},
        "hovertemplate": "%{text}<extra></extra>",
    }


_COLUMNS = ("feature", "value", "reference", "phi", "se")


def _table(name: str, fall: Waterfall, words: Words, *, base: str, end: str) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (words("features.base"), base, "", f"{fall.base / 1000:.3f}", ""),
        *(_row(step, show_step(shown), words) for step, shown in zip(fall.steps, fall.shown, strict=True)),
        (words("features.rest", n=fall.n_rest), "", "", show_step(fall.rest), ""),
        (words("features.end"), end, "", f"{fall.end / 1000:.3f}", ""),
    ]
    return Table(
        caption=words("features.table"),
        columns=tuple(words(f"features.{key}") for key in _COLUMNS),
        rows=tuple(rows),
        name=f"waterfall-{name}",
    )


def _list_all(name: str, view: View, words: Words) -> Table:
    steps = sorted(list_steps(view, words), key=lambda step: -abs(step.phi))
    return Table(
        caption=words(f"features.all_{name}"),
        columns=tuple(words(f"features.{key}") for key in _COLUMNS),
        rows=tuple(_row(step, f"{step.phi:+.4f}", words) for step in steps),
        name=f"features-{name}",
    )


def _row(step: Step, phi: str, words: Words) -> tuple[Cell, ...]:
    return step.label, step.value, step.reference, phi, words("value.exact") if step.se is None else f"{step.se:.4f}"
