"""Sums of a feature that do not tell how many patients have each of its hidden levels.

With a linear head all patients who share a level share its phi, which anybody can compute from the published weights
and background: an exact mean over all patients is then an equation for the counts of the hidden levels. So patients of
a hidden level are counted as if they had the most common of the hidden ones. What is told is the same whatever the
hidden counts are, and a feature for which that could change too much is not told at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

TOLERANCE = 0.1  # part of the mean |phi|, or of its standard deviation, that hidden counts may change


@dataclass(frozen=True)
class ConcealedSums:
    """Sums over patients, with hidden levels counted as the most common hidden one.

    Attributes:
        size: of |phi|.
        phi: of phi.
        square: of phi squared.
        are_changed: whether two levels or more are hidden.
        tell_mean: whether the true means differ by at most TOLERANCE of the mean |phi|, whatever is hidden.
        tell_spread: whether the true standard deviation of |phi| differs by at most TOLERANCE, to first order.
    """

    size: float
    phi: float
    square: float
    are_changed: bool = False
    tell_mean: bool = True
    tell_spread: bool = True


def conceal_counts(
    sums: ConcealedSums,
    sizes: Float64[np.ndarray, "level"],
    phi: Float64[np.ndarray, "level"],
    square: Float64[np.ndarray, "level"],
    *,
    shown: Bool[np.ndarray, "level"],
    fewest: int,
) -> ConcealedSums:
    """The sums of a feature without what they tell of its hidden levels.

    Args:
        sums: over all patients, unchanged.
        sizes: patients by level.
        phi: sum of phi by level.
        square: sum of phi squared by level.
        shown: levels that are shown.
        fewest: patients that a shown level has at least; all hidden ones but the largest have fewer.
    """
    hidden = ~shown & (sizes > 0)
    if hidden.sum() < 2:
        return sums
    common = int(np.argmax(np.where(hidden, sizes, 0.0)))
    rare = hidden & (np.arange(len(sizes)) != common)
    levels = np.maximum(sizes, 1.0)  # where nobody is, all sums are 0
    # |phi| of a level is the root of its mean square, exactly where all its patients share it.
    means = np.stack([np.sqrt(square / levels), phi / levels, square / levels])
    changes = (means[:, [common]] - means)[:, rare]
    new_size, new_phi, new_square = changes @ sizes[rare] + (sums.size, sums.phi, sums.square)
    size_change, phi_change, square_change = (fewest - 1) * np.abs(changes).sum(axis=1)
    new_size = max(new_size, abs(new_phi))
    n = float(sizes.sum())
    variance = max(new_square - new_size**2 / n, 0.0)
    return ConcealedSums(
        size=float(new_size),
        phi=float(new_phi),
        square=float(variance + new_size**2 / n),
        are_changed=True,
        tell_mean=bool(max(size_change, phi_change) <= TOLERANCE * new_size),
        tell_spread=bool(square_change <= 2 * TOLERANCE * variance),
    )
