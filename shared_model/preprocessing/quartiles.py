"""Medians of columns that lie at several hospitals: histograms whose window narrows on the quartiles.

The first window is the schema's range. Each later one holds the bins of the lower and the upper quartile, as the total
over hospitals tells them, so that the result does not depend on how wide the range was written. A column is done when

* its bins are at most `FRACTION` (5 %) of its interquartile range wide, or
* the median's bin holds fewer than `min-patients` values over all hospitals, or
* more than half of its values are equal: when the bins are `TIED` of its standard deviation wide.

So the median is off by at most 5 % of the interquartile range, or lies in a bin with the true one and fewer than
`min-patients` values; it is never farther from the mean than one standard deviation (`fit_preprocessing`). Hospitals
derive the windows from the totals themselves (`statistics.replay`). That hides no single patients from a coordinator
that makes totals up, nor small cells of a hospital's histogram from one that looks at it: sums arrive in the clear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from shared_model.preprocessing.centred_sums import CentredSums

N_BINS = 64
FRACTION, TIED = 0.05, 1e-6
_ROUNDING = 1e-12  # of the window's ends: below it float64 has no further edges


@dataclass(frozen=True)
class QuartileSearch:
    """State of the search, a row a column.

    Attributes:
        low: lower end of the window, in the column's unit; likewise `high`.
        wanted: whether another histogram is needed.
        median: as known so far; NaN before the first histogram, and where nobody has a value.
    """

    low: Float64[np.ndarray, "column"]
    high: Float64[np.ndarray, "column"]
    wanted: Bool[np.ndarray, "column"]
    median: Float64[np.ndarray, "column"]

    @classmethod
    def start(cls, ranges: Float64[np.ndarray, "column 2"], *, wanted: Bool[np.ndarray, "column"]) -> QuartileSearch:
        """The search before its first question.

        Args:
            ranges: smallest and largest possible value.
            wanted: columns whose median is looked for.
        """
        return cls(ranges[:, 0].copy(), ranges[:, 1].copy(), wanted.copy(), np.full(len(ranges), np.nan))

    def count(self, values: Float64[np.ndarray, "patient column"]) -> Float64[np.ndarray, "column bins"]:
        """Histograms of some patients: what lies below the window, N_BINS bins, what lies above; zeros if not wanted.

        Args:
            values: in the columns' units; NaN = missing.
        """
        counts = np.zeros((len(self.low), N_BINS + 2))
        for i in np.flatnonzero(self.wanted):
            known = values[~np.isnan(values[:, i]), i]
            place = np.searchsorted(self._edges(int(i)), known, side="right")
            place[known == self.high[i]] = N_BINS  # the upper end belongs to the window
            counts[i] = np.bincount(place, minlength=N_BINS + 2)
        return counts

    def narrow(
        self, counts: Float64[np.ndarray, "column bins"], moments: CentredSums, *, min_patients: int
    ) -> QuartileSearch:
        """The search after a question.

        Args:
            counts: of `count`, summed over hospitals.
            moments: of the columns, as known so far.
            min_patients: fewest values that the median's bin may hold if it is to be cut further.
        """
        low, high, wanted, median = (part.copy() for part in (self.low, self.high, self.wanted, self.median))
        for i in np.flatnonzero(self.wanted):
            found = _find_quartiles(self._edges(int(i)), np.rint(counts[i]))
            wanted[i] = found is not None and not found.is_sharp(sd=float(moments.sd[i]), min_patients=min_patients)
            if found is not None:
                low[i], high[i], median[i] = found.low, found.high, found.median
        return QuartileSearch(low, high, wanted & ~moments.constant, median)

    def _edges(self, i: int) -> Float64[np.ndarray, "edge"]:
        return np.linspace(self.low[i], self.high[i], N_BINS + 1)


@dataclass(frozen=True)
class _Quartiles:
    """Quartiles of one column, as far as one histogram tells them.

    Attributes:
        low: lower end of the bin of the lower quartile; `high`: upper end of that of the upper one.
        median: on a straight line within its bin.
        width: of a bin.
        n_middle: values in the median's bin.
    """

    low: float
    high: float
    median: float
    width: float
    n_middle: int

    def is_sharp(self, *, sd: float, min_patients: int) -> bool:
        """True if the median needs no further histogram; see the module."""
        within = self.high - self.low - 2 * self.width  # at most the interquartile range
        tied = max(TIED * sd, _ROUNDING * max(abs(self.low), abs(self.high)))
        return self.width <= max(FRACTION * within, tied) or self.n_middle < min_patients


def _find_quartiles(edges: Float64[np.ndarray, "edge"], counts: Float64[np.ndarray, "bins"]) -> _Quartiles | None:
    """Quartiles by a histogram; None where nobody has a value, or the median is outside of the window.

    The latter happens where a hospital that answered before does not answer now; what was known then stays.
    """
    ranks = np.cumsum(counts)
    n = ranks[-1]
    lower, middle, upper = (int(np.searchsorted(ranks, share * n)) for share in (0.25, 0.5, 0.75))
    if not n or not 1 <= middle <= N_BINS:
        return None
    width = float(edges[1] - edges[0])
    median = edges[middle - 1] + width * (n / 2 - ranks[middle - 1]) / counts[middle]
    if 2 * ranks[middle] == n and (above := np.flatnonzero(counts[middle + 1 : -1])).size:
        median = (edges[middle] + edges[middle + above[0]]) / 2  # between the two values in the middle
    return _Quartiles(
        low=float(edges[max(lower, 1) - 1]),
        high=float(edges[min(upper, N_BINS)]),
        median=float(median),
        width=width,
        n_middle=int(counts[middle]),
    )
