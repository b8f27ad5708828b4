"""Data-quality measures of a patient, and the sums of them that make the federation's reference.

A measure is a matrix of patients by items, NaN where a patient has no such number. Hospitals send n, sum and sum of
squares per item; a hospital subtracts its own from the total and so knows mean and spread of the others. An item of
which a hospital has fewer than `min_patients` values is sent as zeros, and one that fewer than `min-sites` hospitals
have is not told (`hide_few_sites`): what a subtraction leaves still rests on enough patients of enough hospitals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64

from shared_model.protocol.quantities import MAX_PATIENTS, MAX_SITES, Quantities, Quantity
from shared_model.schema import STATIC, Range, Schema

GRID = 16  # regions of an image along each side
PIXELS = ("brightness", "contrast", "sharpness", "saturation")

PRESENCE, OUTCOME = "presence", "outcome"
CORRELATION_SITES, CORRELATION_WEIGHT, CORRELATION_Z = "correlation/sites", "correlation/weight", "correlation/z"
KNOWN, LEVEL, STILL, INTERVAL, SPAN = "known", "level", "still", "interval", "span"
PIXEL, THUMBNAIL, THUMBNAIL_EVENTS, THUMBNAIL_OTHERS = "pixels", "thumbnail", "thumbnail-events", "thumbnail-others"
PARTS = ("sites", "n", "sum", "square")

Z_LIMIT = 4.0  # of Fisher's z: correlations above 0.9993 count as that
_LOG_LIMIT = 20.0  # of natural logarithms: 2e-9 to 5e8

Measured = dict[str, np.ndarray]
Sums = dict[str, np.ndarray]


@dataclass(frozen=True)
class Measure:
    """One matrix.

    Attributes:
        key: name, and first part of the names of its sums.
        modality: of the study; "" for the outcome.
        items: names of its columns.
        limit: largest absolute value of an entry.
    """

    key: str
    modality: str
    items: tuple[str, ...]
    limit: float = 1.0


def list_measures(schema: Schema, chosen: tuple[str, ...]) -> tuple[Measure, ...]:
    """Everything that is measured of the chosen modalities."""
    others = tuple(name for name in chosen if name != STATIC)
    return (
        Measure(OUTCOME, "", (schema.study.outcome,)),
        Measure(PRESENCE, "", others),
        *(_static_measures(schema) if STATIC in chosen else ()),
        *(measure for name in others for measure in _modality_measures(schema, name)),
    )


def _static_measures(schema: Schema) -> Iterator[Measure]:
    numeric = tuple(column.name for column in schema.numbers if column.kind == "numeric")
    yield Measure(f"{STATIC}/{KNOWN}", STATIC, tuple(column.name for column in (*schema.numbers, *schema.categories)))
    yield Measure(f"{STATIC}/{LEVEL}", STATIC, numeric, _LOG_LIMIT)


def _modality_measures(schema: Schema, name: str) -> Iterator[Measure]:
    if name in schema.series:
        channels = tuple(channel.name for channel in schema.series[name].channels)
        yield Measure(f"{name}/{KNOWN}", name, channels)
        yield Measure(f"{name}/{LEVEL}", name, channels, _LOG_LIMIT)
        yield Measure(f"{name}/{STILL}", name, channels)
        yield Measure(f"{name}/{INTERVAL}", name, ("",), _LOG_LIMIT)
        yield Measure(f"{name}/{SPAN}", name, ("",), _LOG_LIMIT)
    elif name in schema.images:
        cells = tuple(f"row {row + 1}, column {column + 1} of {GRID}" for row in range(GRID) for column in range(GRID))
        yield Measure(f"{name}/{PIXEL}", name, PIXELS, _LOG_LIMIT)
        for part in (THUMBNAIL, THUMBNAIL_EVENTS, THUMBNAIL_OTHERS):
            yield Measure(f"{name}/{part}", name, cells)
    elif schema.events[name].aggregate == "dose":
        yield Measure(f"{name}/{LEVEL}", name, schema.events[name].items, _LOG_LIMIT)


def list_features(schema: Schema, chosen: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Modality and name of everything whose correlations are looked at: numbers, channels' means, items."""
    names = {STATIC: [column.name for column in schema.numbers]}
    names |= {name: [channel.name for channel in series.channels] for name, series in schema.series.items()}
    names |= {name: list(events.items) for name, events in schema.events.items()}
    return tuple((name, item) for name in chosen for item in names.get(name, ()))


def list_pairs(schema: Schema, chosen: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Modality of the first and names of both, of each pair of features."""
    features = list_features(schema, chosen)
    return tuple(
        (name, f"{item} ~ {partner}" if other == name else f"{item} ~ {other} {partner}")
        for i, (name, item) in enumerate(features)
        for other, partner in features[i + 1 :]
    )


def is_logarithmic(limits: Range) -> bool:
    """Whether a variable is compared by its logarithm: a wrong unit is a factor, and a factor shifts a logarithm."""
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
        return np.clip(np.arcsinh(numbers), -_LOG_LIMIT, _LOG_LIMIT)
    positive = numbers > 0
    return np.where(positive, np.clip(np.log(np.where(positive, numbers, 1.0)), -_LOG_LIMIT, _LOG_LIMIT), np.nan)


def reference_quantities(schema: Schema, chosen: tuple[str, ...]) -> Quantities:
    """The arrays of a hospital's reference sums, by name."""
    quantities = {}
    for measure in list_measures(schema, chosen):
        shape = (len(measure.items),)
        lowest = -np.inf if measure.limit > 1 else 0.0
        quantities[f"{measure.key}/sites"] = Quantity(shape, 1, 0)
        quantities[f"{measure.key}/n"] = Quantity(shape, MAX_PATIENTS, 0)
        quantities[f"{measure.key}/sum"] = Quantity(shape, MAX_PATIENTS * measure.limit, lowest)
        quantities[f"{measure.key}/square"] = Quantity(shape, MAX_PATIENTS * measure.limit**2, 0)
    pairs = (len(list_pairs(schema, chosen)),)
    quantities[CORRELATION_SITES] = Quantity(pairs, 1, 0)
    quantities[CORRELATION_WEIGHT] = Quantity(pairs, MAX_PATIENTS, 0)
    quantities[CORRELATION_Z] = Quantity(pairs, MAX_PATIENTS * Z_LIMIT)
    return quantities


def total_quantities(schema: Schema, chosen: tuple[str, ...]) -> Quantities:
    """The same for their total over all hospitals."""
    return {
        name: replace(quantity, limit=quantity.limit * MAX_SITES)
        for name, quantity in reference_quantities(schema, chosen).items()
    }


def hide_few_sites(total: Mapping[str, np.ndarray], *, min_sites: int) -> Sums:
    """The total with zeros in place of items that fewer hospitals have."""
    hidden = {}
    for name, value in total.items():
        sites = total[_sites_of(name)]
        hidden[name] = np.where(np.rint(sites) >= min_sites, value, 0.0)
    return hidden


@dataclass(frozen=True)
class Moments:
    """Hospitals, n, sum and sum of squares of each item."""

    sites: Float64[np.ndarray, " item"]
    n: Float64[np.ndarray, " item"]
    total: Float64[np.ndarray, " item"]
    square: Float64[np.ndarray, " item"]

    @classmethod
    def of(cls, values: Float64[np.ndarray, "patient item"]) -> Moments:
        """Of a measure's matrix."""
        known = ~np.isnan(values)
        filled = np.where(known, values, 0.0)
        n = known.sum(axis=0).astype(np.float64)
        return cls((n > 0).astype(np.float64), n, filled.sum(axis=0), np.square(filled).sum(axis=0))

    @classmethod
    def read(cls, sums: Mapping[str, np.ndarray], key: str) -> Moments:
        """From arrays as `reference_quantities` names them."""
        return cls(*(np.asarray(sums[f"{key}/{part}"], dtype=np.float64) for part in PARTS))

    def kept(self, where: Bool[np.ndarray, " item"]) -> Moments:
        """The same with zeros elsewhere."""
        return Moments(*(np.where(where, part, 0.0) for part in self._parts))

    def write(self, key: str) -> Sums:
        """Arrays as `reference_quantities` names them."""
        return {f"{key}/{part}": value for part, value in zip(PARTS, self._parts, strict=True)}

    @property
    def _parts(self) -> tuple[Float64[np.ndarray, " item"], ...]:
        return self.sites, self.n, self.total, self.square

    @property
    def mean(self) -> Float64[np.ndarray, " item"]:
        """Means; 0 where there is nothing."""
        return np.asarray(self.total / np.maximum(self.n, 1))

    @property
    def sd(self) -> Float64[np.ndarray, " item"]:
        """Standard deviations, of n."""
        return np.asarray(np.sqrt(np.maximum(self.square / np.maximum(self.n, 1) - np.square(self.mean), 0.0)))


def subtract_own(total: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray], quantities: Quantities) -> Sums:
    """The others' sums: the total less what this hospital added to it, digit for digit; zeros where nothing is told."""
    others = {}
    for name, quantity in quantities.items():
        told = np.rint(total[_sites_of(name)]) > 0
        others[name] = np.where(told, total[name] - quantity.decode(quantity.encode(own[name])), 0.0)
    return others


def _sites_of(name: str) -> str:
    """Name of the array that counts the hospitals of another one's items."""
    return f"{name.rpartition('/')[0]}/sites"
