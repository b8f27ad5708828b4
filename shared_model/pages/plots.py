"""The style of figures: colours that the colour-blind tell apart, plain axes, points with intervals.

Colours are names of the theme's variables (theme.css holds them for light and dark); the page puts the values in. A
series differs from another by symbol or dash as well. Axes of names are numbers with tick texts: plotly would join two
names that are cut to the same letters.
"""

from collections.abc import Sequence

from shared_model.pages.escaping import figure_text

BLUE, ORANGE, GREEN, VERMILION, PURPLE = (
    f"var(--{name})" for name in ("blue", "orange", "green", "vermilion", "purple")
)
GRAY, INK, LINE = "var(--gray)", "var(--ink)", "var(--line)"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, GRAY)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")
LOW_TO_HIGH = [[0, BLUE], [0.5, GRAY], [1, ORANGE]]

ROW_HEIGHT, FRAME_HEIGHT = 30, 110

Trace = dict[str, object]  # a part of plotly's JSON


def axis(title: str, **changes: object) -> Trace:
    """A plain axis; it does not move when it is touched."""
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": 13}},
        "automargin": True,
        "fixedrange": True,
        "gridcolor": LINE,
        "zerolinecolor": GRAY,
        "linecolor": GRAY,
        "ticks": "outside",
        "tickcolor": LINE,
        "exponentformat": "none",  # 0.0001, not 100µ
        **changes,
    }


def name_axis(names: Sequence[str], *, title: str = "") -> Trace:
    """A vertical axis of rows, the first on top."""
    return axis(
        title,
        tickmode="array",
        tickvals=list(range(len(names))),
        ticktext=[figure_text(name) for name in names],
        range=[len(names) - 0.5, -0.5],
        zeroline=False,
        showgrid=False,
    )


def layout(x: Trace, y: Trace, **changes: object) -> Trace:
    """A plain layout: no frame, no background, the legend above."""
    return {
        "xaxis": x,
        "yaxis": y,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "margin": {"l": 48, "r": 16, "t": 12, "b": 44},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hovermode": "closest",
        "dragmode": False,
        **changes,
    }


def rows_height(n: int) -> int:
    """Height in pixels of a figure with so many rows."""
    return FRAME_HEIGHT + ROW_HEIGHT * max(n, 1)


def line(name: str, x: Sequence[object], y: Sequence[object], *, series: int, dash: str = "solid") -> Trace:
    """Points joined by a line."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": figure_text(name),
        "x": list(x),
        "y": list(y),
        "line": {"color": SERIES[series], "dash": dash, "width": 2},
        "marker": {"color": SERIES[series], "symbol": SYMBOLS[series], "size": 6},
        "hovertemplate": "%{x:.4~g}, %{y:.4~g}",
    }


def reference_line(name: str, x: Sequence[object], y: Sequence[object]) -> Trace:
    """A line to compare with, dotted and without points."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": figure_text(name),
        "x": list(x),
        "y": list(y),
        "line": {"color": GRAY, "dash": "dot", "width": 1.5},
        "hoverinfo": "skip",
    }


def points_with_intervals(
    name: str,
    rows: Sequence[float],
    values: Sequence[float | None],
    intervals: Sequence[Sequence[float | None] | None],
    *,
    series: int,
) -> Trace:
    """A point and its interval a row; rows without a value are left out, and the table says why."""
    kept = [(row, value, ends) for row, value, ends in zip(rows, values, intervals, strict=True) if value is not None]
    ends = [_ends(value, both) for _, value, both in kept]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": figure_text(name),
        "y": [row for row, _, _ in kept],
        "x": [value for _, value, _ in kept],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [high - value for (_, value, _), (_, high) in zip(kept, ends, strict=True)],
            "arrayminus": [value - low for (_, value, _), (low, _) in zip(kept, ends, strict=True)],
            "color": SERIES[series],
            "thickness": 1.5,
            "width": 4,
        },
        "marker": {"color": SERIES[series], "symbol": SYMBOLS[series], "size": 9},
        "hovertemplate": "%{x:.4~g}",
    }


def _ends(value: float, both: Sequence[float | None] | None) -> tuple[float, float]:
    low, high = both if both is not None and len(both) == 2 else (None, None)
    return (value if low is None else low, value if high is None else high)
