"""Means and standard deviations of columns that lie at several hospitals, from sums about an agreed centre.

A hospital sends n, the sum and the sum of squares of u = (x - centre) / scale. The first centre and scale are the ends
of the schema's range. Where the spread is small beside the scale, the squares have lost its digits (1.7e9 seconds, or a
range of +-1e9), and the question is put again about the mean and the spread that the total tells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float64

from shared_model.protocol.quantities import MAX_PATIENTS, Quantities, Quantity

PARTS = ("n", "sum", "square")
SPREAD_LIMIT = 16.0  # of the mean of u^2: with a scale of two sd it is about 1/4 over all hospitals
_CLEAR = 0.05  # of the scale: a smaller sd is looked at again
_STEP = 1e-4  # of the scale: what the squares of one question can tell, fixed point included
_CONSTANT = 1e-12  # of the values: below it float64 knows no spread
_NOTHING = 1e-18  # of the range: a column of zeros alone


@dataclass(frozen=True)
class CentredSums:
    """State of the questions, a row a column.

    Attributes:
        centre: in the column's unit.
        scale: likewise, above 0.
        least: a smaller scale is no spread.
        once: whether the column is asked for once only: of 0 and 1 the mean tells the spread.
        wanted: whether the next question asks for the column.
        mean: as known so far.
        sd: likewise, of n; 0 for a column that does not vary, and where nobody has a value.
    """

    centre: Float64[np.ndarray, "column"]
    scale: Float64[np.ndarray, "column"]
    least: Float64[np.ndarray, "column"]
    once: Bool[np.ndarray, "column"]
    wanted: Bool[np.ndarray, "column"]
    mean: Float64[np.ndarray, "column"]
    sd: Float64[np.ndarray, "column"]

    @classmethod
    def start(cls, ranges: Float64[np.ndarray, "column 2"], *, once: Bool[np.ndarray, "column"]) -> CentredSums:
        """Before the first question: u is a value's place in its range, from 0 to 1.

        Args:
            ranges: smallest and largest possible value.
            once: see the attribute.
        """
        low, width = ranges[:, 0], ranges[:, 1] - ranges[:, 0]
        return cls(
            centre=low.copy(),
            scale=width,
            least=_NOTHING * width,
            once=once,
            wanted=np.ones(len(low), dtype=bool),
            mean=low.copy(),
            sd=np.zeros(len(low)),
        )

    @property
    def constant(self) -> Bool[np.ndarray, "column"]:
        """True where the column is known not to vary."""
        return np.asarray(~self.wanted & (self.sd == 0))

    def add_up(self, values: Float[np.ndarray, "*rows column"]) -> dict[str, Float64[np.ndarray, "column"]]:
        """n, sum and sum of squares of some patients' values, NaN = missing; zeros where not wanted."""
        u = (values.astype(np.float64) - self.centre) / self.scale
        known = ~np.isnan(u) & self.wanted
        filled = np.where(known, u, 0.0)
        axes = tuple(range(u.ndim - 1))
        parts = known.sum(axis=axes).astype(np.float64), filled.sum(axis=axes), np.square(filled).sum(axis=axes)
        return dict(zip(PARTS, parts, strict=True))

    @property
    def divisor(self) -> Float64[np.ndarray, "column"]:
        """Standard deviations; 1 for a constant or never measured column, so that it becomes 0."""
        return np.where(self.sd > 0, self.sd, 1.0)

    def refine(
        self,
        n: Float64[np.ndarray, "column"],
        total: Float64[np.ndarray, "column"],
        square: Float64[np.ndarray, "column"],
    ) -> CentredSums:
        """After a question whose sums over hospitals these are."""
        asked = self.wanted & (n > 0)
        u = total / np.maximum(n, 1)
        spread = np.sqrt(np.maximum(square / np.maximum(n, 1) - np.square(u), 0.0))
        mean = np.where(asked, self.centre + self.scale * u, self.mean)
        unclear = asked & (spread < _CLEAR) & ~self.once
        scale = np.where(unclear, self.scale * np.maximum(2 * spread, _STEP), self.scale)
        constant = unclear & (scale <= np.maximum(_CONSTANT * np.abs(mean), self.least))
        return replace(
            self,
            centre=np.where(unclear, mean, self.centre),
            scale=np.where(constant, self.scale, scale),
            wanted=unclear & ~constant,
            mean=mean,
            sd=np.where(asked, np.where(constant, 0.0, self.scale * spread), self.sd),
        )


def centred_quantities(n_columns: int, *, cells: int = 1) -> Quantities:
    """The arrays of `CentredSums.add_up`.

    Args:
        n_columns: how many columns.
        cells: most values of a column that one patient has.
    """
    most = float(MAX_PATIENTS * cells)
    return {
        "n": Quantity((n_columns,), most, 0),
        "sum": Quantity((n_columns,), most * SPREAD_LIMIT),
        "square": Quantity((n_columns,), most * SPREAD_LIMIT, 0),
    }
