"""Axes and colours that several figures of the page share."""

from collections.abc import Sequence

import numpy as np

from shared_model.evaluation.score_sums import sigmoid
from shared_model.pages.escaping import LONGEST_LABEL
from shared_model.pages.numbers import percent
from shared_model.pages.plots import BLUE, GRAY, ORANGE, Trace, axis

RAISES, LOWERS, NEITHER = ORANGE, BLUE, GRAY
_FEWEST_TICKS, _MOST_TICKS = 3, 6
_RISKS = (
    (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.6, 0.9, 0.97, 0.99),
    (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98),
    *(tuple(np.arange(step, 1, step).tolist()) for step in (0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005)),
)


def risk_axis(title: str, low: float, high: float) -> Trace:
    """An axis of log odds whose ticks are risks.

    Args:
        title: of the axis.
        low: log odds at its left end.
        high: log odds at its right end.
    """
    risks = risk_ticks(low, high)
    return axis(
        title,
        tickmode="array",
        tickvals=[float(np.log(risk / (1 - risk))) for risk in risks],
        ticktext=[_show_risk(risk) for risk in risks],
        range=[low, high],
        zeroline=False,
    )


def risk_ticks(low: float, high: float) -> list[float]:
    """Round risks within two log odds; the fewest that are enough to read the axis, none twice."""
    first, last = sigmoid(np.array([low, high])).tolist()
    choices = [[risk for risk in risks if first < risk < last] for risks in _RISKS]
    enough = [ticks for ticks in choices if _FEWEST_TICKS <= len(ticks) <= _MOST_TICKS]
    return enough[0] if enough else [first + (last - first) * part for part in (0.1, 0.5, 0.9)]


def risk_of(logit: float) -> float:
    """The risk of log odds."""
    return float(sigmoid(np.array([logit]))[0])


def _show_risk(risk: float) -> str:
    """As few decimals as the risk needs.

    >>> _show_risk(0.1), _show_risk(0.005), _show_risk(0.0815)
    ('10%', '0.5%', '8.15%')
    """
    digits = next((digits for digits in range(3) if np.isclose(100 * risk, round(100 * risk, digits))), 2)
    return percent(risk, digits=digits)


def padded(values: Sequence[float], *, part: float = 0.12) -> tuple[float, float]:
    """The range of an axis that holds all values with room on both sides."""
    low, high = min(values), max(values)
    room = part * (high - low) or 0.5
    return low - room, high + room


def row_label(name: str, value: str, *, longest: int = LONGEST_LABEL) -> str:
    """A feature and its value for an axis; of the two the name is cut, and never to less than a third.

    >>> row_label("noradrenaline_ug_per_kg_per_min", "0.04 ug")
    'noradrenaline_ug_pe… = 0.04 ug'
    """
    room = max(longest // 3, longest - len(value) - 3)
    return f"{name if len(name) <= room else name[: room - 1] + '…'} = {value}"
