"""An interval that the report adds itself: for a share of few patients."""

import math

from shared_model.evaluation.metric_intervals import Z_95


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """95 % interval of a share.

    Args:
        share: observed, 0 to 1.
        n: patients, above 0.

    Source: Wilson 1927, J Am Stat Assoc 22:209.

    >>> tuple(round(end, 4) for end in wilson_interval(0.1, 50))
    (0.0435, 0.2136)
    """
    shrink = 1 + Z_95**2 / n
    middle = (share + Z_95**2 / (2 * n)) / shrink
    half = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2)) / shrink
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return 0.0 if share == 0 else low, 1.0 if share == 1 else high
