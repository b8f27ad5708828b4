"""Data-quality measures of a patient, and the sums of them that make the federation's reference.

A measure is a matrix of patients by items, NaN where a patient has no such number. Hospitals send n, sum and sum of
squares per item; a hospital subtracts its own from the total and so knows mean and spread of the others. An item of
which a hospital has fewer than `min_patients` values is sent as zeros, and one that fewer than `min-sites` hospitals
have is not told (`hide_few_sites`): what a subtraction leaves still rests on enough patients of enough hospitals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64

from shared_model.modalities.registry import open_modality
from shared_model.protocol.quantities import MAX_PATIENTS, MAX_SITES, Quantities, Quantity
from shared_model.quality.measure import OUTCOME, PRESENCE, Measure
from shared_model.schema import STATIC, Schema

CORRELATION_SITES, CORRELATION_WEIGHT, CORRELATION_Z = "correlation/sites", "correlation/weight", "correlation/z"
PARTS = ("sites", "n", "sum", "square")

Z_LIMIT = 4.0  # of Fisher's z: correlations above 0.9993 count as that

Sums = dict[str, np.ndarray]


def list_measures(schema: Schema, chosen: tuple[str, ...]) -> tuple[Measure, ...]:
    """Everything that is measured of the chosen modalities."""
    others = tuple(name for name in chosen if name != STATIC)
    return (
        Measure(OUTCOME, "", (schema.study.outcome,)),
        Measure(PRESENCE, "", others),
        *(measure for name in chosen for measure in open_modality(name, schema).measures()),
    )


def list_correlated(schema: Schema, chosen: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Modality and name of everything whose correlations are looked at: numbers, channels' means, items."""
    return tuple((name, item) for name in chosen for item in open_modality(name, schema).correlated())


def list_pairs(schema: Schema, chosen: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Modality of the first and names of both, of each pair of features."""
    features = list_correlated(schema, chosen)
    return tuple(
        (name, f"{item} ~ {partner}" if other == name else f"{item} ~ {other} {partner}")
        for i, (name, item) in enumerate(features)
        for other, partner in features[i + 1 :]
    )


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
