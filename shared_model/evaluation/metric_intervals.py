"""95 % intervals of metrics other than the AUC, from the counts of `ScoreSums`. All take patients as independent.

Measured coverage in 1,500 studies each, patients drawn anew, with 138, 33 and 11 events on average: Brier score 95, 93
and 93 %, log loss 95, 93 and 92 %, average precision 96, 95 and 93 %, calibration slope 96, 96 and 95 %, calibration
intercept 96, 95 and 96 % (of a model with slope 0.7 and 337 events: 94, 94, 94, 94 and 93 %).
"""

import math
from statistics import NormalDist

import numpy as np
from jaxtyping import Float64, Int64

from shared_model.evaluation.score_sums import sigmoid

Z_95 = NormalDist().inv_cdf(0.975)

Interval = tuple[float, float]


def mean_interval(mean: float, counts: Int64[np.ndarray, "2 bin"], loss: Float64[np.ndarray, "2 bin"]) -> Interval:
    """Of a mean loss over patients, from its sample variance.

    Args:
        mean: of all patients' own losses.
        counts: patients per outcome class and bin, at least 2.
        loss: of a patient in this class and bin; it gives the variance alone.
    """
    n = int(counts.sum())
    spread = float(np.sum(counts * np.square(loss - np.sum(counts * loss) / n))) / (n - 1)
    half = Z_95 * math.sqrt(spread / n)
    return max(0.0, mean - half), mean + half


def average_precision_interval(value: float, *, events: int) -> Interval | None:
    """On the scale log(p / (1 - p)), as if it were a share of the events; None at 1, where that scale ends.

    Source: Boyd, Eng and Page 2013, Area under the precision-recall curve, ECML PKDD, section 3.2 (logit interval).

    Args:
        value: average precision, above 0.
        events: patients with the event.
    """
    if value >= 1:
        return None
    half = Z_95 / math.sqrt(events * value * (1 - value))
    low, high = sigmoid(math.log(value / (1 - value)) + np.array([-half, half]))
    return float(low), float(high)


def wald_interval(value: float, variance: float) -> Interval:
    """Of a maximum likelihood estimate, with the variance that the Fisher information gives."""
    half = Z_95 * math.sqrt(variance)
    return value - half, value + half
