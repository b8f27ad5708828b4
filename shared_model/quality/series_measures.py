"""Numbers of series: how densely and how long they were measured, and flat lines."""

import numpy as np
from jaxtyping import Bool, Float64

MIN_PAIRS = 4  # successive values that a patient's still share rests on


def time_measures(
    measured: Bool[np.ndarray, "patient time"],
) -> tuple[Float64[np.ndarray, " patient"], Float64[np.ndarray, " patient"]]:
    """Logarithms of the mean interval between filled cells and of the time from the first to the last, in cells."""
    n_steps = measured.shape[1]
    count = measured.sum(axis=1)
    first = measured.argmax(axis=1)
    last = n_steps - 1 - measured[:, ::-1].argmax(axis=1)
    span = last - first
    interval = np.where(count > 1, np.log(np.maximum(span, 1) / np.maximum(count - 1, 1)), np.nan)
    return interval, np.where(count > 0, np.log(span + 1.0), np.nan)


def still_share(values: Float64[np.ndarray, "patient time"]) -> Float64[np.ndarray, " patient"]:
    """Share of successive values that are equal; gaps are skipped; NaN with fewer than `MIN_PAIRS` pairs.

    Args:
        values: of one channel, NaN where nothing was measured.
    """
    measured = ~np.isnan(values)
    steps = np.arange(values.shape[1])
    before = np.maximum.accumulate(np.where(measured, steps, -1), axis=1)
    before = np.concatenate([np.full((len(values), 1), -1), before[:, :-1]], axis=1)
    pair = measured & (before >= 0)
    earlier = np.take_along_axis(values, np.maximum(before, 0), axis=1)
    n_pairs = pair.sum(axis=1)
    equal = (pair & (values == earlier)).sum(axis=1)
    return np.where(n_pairs >= MIN_PAIRS, equal / np.maximum(n_pairs, 1), np.nan)
