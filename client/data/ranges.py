"""Ranges of the schema that are far wider than a hospital's values: a wrong unit, or a range that means no limit."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64

from shared_model.patient_arrays import PatientArrays
from shared_model.schema import Range, Schema

TOO_WIDE = 100.0
"""A range so many times as wide as the values is noted: what is reckoned on its scale sees little of them."""


def wide_ranges(arrays: PatientArrays, schema: Schema) -> tuple[str, ...]:
    """A sentence for each column and channel whose range is too wide for the values from the 5th to 95th percentile."""
    return tuple(
        f"{name}: range {limits[0]:g} to {limits[1]:g} is {_ratio(limits, spread):,.0f} times as wide as the values "
        f"(p5 {low:.3g}, p95 {high:.3g}). Check their unit, and the range with whoever wrote the schema"
        for name, limits, values in _columns(arrays, schema)
        for low, high, spread in _spread(values)
        if _ratio(limits, spread) > TOO_WIDE
    )


def _columns(arrays: PatientArrays, schema: Schema) -> Iterator[tuple[str, Range, Float64[np.ndarray, " value"]]]:
    for i, column in enumerate(schema.numbers):
        if column.range is not None:
            yield column.name, column.range, arrays.numbers[:, i]
    for name, series in schema.series.items():
        values = np.asarray(arrays.raw[name])[arrays.present[name]]
        for i, channel in enumerate(series.channels):
            yield f"{name}, {channel.name}", channel.range, values[:, :, i].ravel()


def _spread(values: Float64[np.ndarray, " value"]) -> Iterator[tuple[float, float, float]]:
    """5th and 95th percentile and their distance, or that of the extremes where these are equal; none of a constant."""
    known = values[~np.isnan(values)]
    if len(known) and known.min() < known.max():
        low, high = (float(edge) for edge in np.percentile(known, [5, 95]))
        yield low, high, high - low or float(np.ptp(known))


def _ratio(limits: Range, spread: float) -> float:
    return (limits[1] - limits[0]) / spread
