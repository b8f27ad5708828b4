"""The patient's risk among those of the hospital's other patients."""

import itertools
from collections.abc import Sequence

import numpy as np

from client.patient_page.content import Explained
from shared_model.pages.blocks import Cell, Figure, Section, Table, Text
from shared_model.pages.numbers import percent
from shared_model.pages.plots import GRAY, INK, VERMILION, axis, layout
from shared_model.pages.wording import Words

_STEPS = (0.005, 0.01, 0.02, 0.05, 0.1)
_MOST_BARS = 25
_EQUAL = 1e-5  # of a risk: what single precision leaves between equal ones


def describe_cohort(explained: Explained, words: Words) -> Section:
    """The distribution of the risks, with the patient's in it."""
    title = words("cohort.title")
    if not explained.cohort.risks:
        return Section("cohort", title, (Text(words("cohort.none")),))
    kind = explained.cohort.part or "unknown"
    return Section("cohort", title, (Text(words(f"cohort.{kind}")), _draw(explained, words)))


def _draw(explained: Explained, words: Words) -> Figure:
    risks, own = explained.cohort.risks, explained.prediction.probability
    edges = bin_edges([*risks, own])
    counts = np.histogram(risks, bins=edges)[0].tolist()
    ends = [(percent(low), percent(high)) for low, high in itertools.pairwise(edges)]
    below, equal = count_place(risks, own)
    top = max(*counts, 1)
    quartiles = [percent(value) for value in np.quantile(risks, (0.25, 0.5, 0.75)).tolist()]
    bars = {
        "type": "bar",
        "name": words("cohort.others"),
        "x": [(low + high) / 2 for low, high in itertools.pairwise(edges)],
        "y": counts,
        "width": [high - low for low, high in itertools.pairwise(edges)],
        "marker": {"color": GRAY, "line": {"color": "var(--surface)", "width": 1}},
        "hovertemplate": "%{y}<extra></extra>",
    }
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": words("cohort.own", risk=percent(own)),
        "x": [own, own],
        "y": [0, 1.08 * top],
        "line": {"color": VERMILION, "width": 3},
        "marker": {"symbol": ["line-ew", "triangle-down"], "size": 11, "color": VERMILION},
        "hovertemplate": percent(own) + "<extra></extra>",
        "textfont": {"color": INK},
    }
    return Figure(
        name="cohort",
        title=words("cohort.figure"),
        alt=words("cohort.alt", n=len(risks), below=below, equal=equal, risk=percent(own), median=quartiles[1]),
        caption=words("cohort.caption", n=len(risks), low=quartiles[0], median=quartiles[1], high=quartiles[2]),
        data=[bars, line],
        layout=layout(
            axis(words("cohort.risk"), tickformat=".0%", range=[0, edges[-1]], zeroline=False),
            axis(words("cohort.patients"), rangemode="tozero", range=[0, 1.15 * top], tickformat="d"),
            bargap=0,
        ),
        table=Table(
            caption=words("cohort.figure"),
            columns=(words("cohort.risk"), words("cohort.patients"), words("cohort.here")),
            rows=tuple(_row(ends[i], counts[i], i == _bin_of(own, edges), words) for i in range(len(counts))),
            name="cohort",
        ),
        height=300,
    )


def count_place(risks: Sequence[float], own: float) -> tuple[int, int]:
    """How many risks are below the patient's, and how many are equal to it."""
    equal = [bool(np.isclose(risk, own, rtol=_EQUAL, atol=0.0)) for risk in risks]
    return sum(risk < own and not same for risk, same in zip(risks, equal, strict=True)), sum(equal)


def bin_edges(risks: list[float]) -> list[float]:
    """Round edges from 0 to beyond the largest risk."""
    largest = max(risks)
    step = next((step for step in _STEPS if largest / step < _MOST_BARS), _STEPS[-1])
    n = int(np.floor(largest / step)) + 1
    return [round(step * i, 6) for i in range(n + 1)]


def _bin_of(risk: float, edges: list[float]) -> int:
    return min(int(np.searchsorted(edges, risk, side="right")) - 1, len(edges) - 2)


def _row(ends: tuple[str, str], count: int, is_here: bool, words: Words) -> tuple[Cell, ...]:  # noqa: FBT001 - a cell
    return (
        words("cohort.between", low=ends[0], high=ends[1]),
        count,
        words("cohort.this" if is_here else "cohort.other"),
    )
