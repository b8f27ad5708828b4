"""Measures: matrices of patients by items in which hospitals are compared, NaN where a patient has no such number."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from shared_model.schema import Range

PRESENCE, OUTCOME = "presence", "outcome"
KNOWN, LEVEL, STILL, INTERVAL, SPAN = "known", "level", "still", "interval", "span"
PIXEL, THUMBNAIL, THUMBNAIL_EVENTS, THUMBNAIL_OTHERS = "pixels", "thumbnail", "thumbnail-events", "thumbnail-others"
LOG_LIMIT = 20.0  # of natural logarithms: 2e-9 to 5e8

Measured = dict[str, np.ndarray]


@dataclass(frozen=True)
class Measure:
    """One matrix.

    Attributes:
        key: name, and first part of the names of its sums.
        modality: of the study; "" for the outcome.
        items: names of its columns.
        limit: largest absolute value of an entry.
        ranges: of a measure of levels, the items' ranges in the schema.
        is_dose: of a measure of levels, whether these are amounts that were given: they differ between hospitals.
        is_count: of a measure of what is known, whether its sum counts patients; otherwise it is a sum of shares.
    """

    key: str
    modality: str
    items: tuple[str, ...]
    limit: float = 1.0
    ranges: tuple[Range, ...] = ()
    is_dose: bool = False
    is_count: bool = True


def is_logarithmic(limits: Range) -> bool:
    """True if a variable is compared by its logarithm: a wrong unit is a factor, and a factor shifts a logarithm."""
    return limits[0] >= 0


def to_level(values: np.ndarray, limits: Range) -> Float64[np.ndarray, "..."]:
    """Values on the scale that is compared: the logarithm of what is positive, or asinh where the range is signed.

    Neither depends on how wide the range is: asinh is straight near 0 and logarithmic far from it.

    Args:
        values: in the variable's unit, NaN where there is none.
        limits: the schema's range.

    Returns:
        NaN also for zeros of a logarithmic variable: a wrong unit does not move them.
    """
    numbers = values.astype(np.float64)
    if not is_logarithmic(limits):
        return np.clip(np.arcsinh(numbers), -LOG_LIMIT, LOG_LIMIT)
    positive = numbers > 0
    return np.where(positive, np.clip(np.log(np.where(positive, numbers, 1.0)), -LOG_LIMIT, LOG_LIMIT), np.nan)


def to_levels(
    values: Float64[np.ndarray, "patient item"], limits: Sequence[Range]
) -> Float64[np.ndarray, "patient item"]:
    """`to_level` of each column."""
    columns = [to_level(values[:, i], each) for i, each in enumerate(limits)]
    return np.stack(columns, axis=1) if columns else np.zeros((len(values), 0))
