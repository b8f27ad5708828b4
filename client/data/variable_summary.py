"""Summary of each variable of a modality: quantiles, counts of levels, and how many patients lack it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float32, Shaped

from shared_model.patient_arrays import PatientArrays
from shared_model.schema import Schema


@dataclass(frozen=True)
class VariableSummary:
    """One column, channel, item or image.

    Attributes:
        name: as in the schema.
        unit: unit of the quantiles.
        missing: patients of the modality without a value.
        quantiles: 5th, 50th and 95th percentile of all values; None if there is none, or if it is not a number.
        counts: patients per level (binary: "0" and "1"; events: "given").
    """

    name: str
    unit: str = ""
    missing: int = 0
    quantiles: tuple[float, float, float] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


def _quantiles(values: Float[np.ndarray, " ..."]) -> tuple[float, float, float] | None:
    measured = values[~np.isnan(values)]
    if not len(measured):
        return None
    low, middle, high = np.percentile(measured, [5, 50, 95])
    return float(low), float(middle), float(high)


def summarise_static(arrays: PatientArrays, schema: Schema, name: str) -> tuple[VariableSummary, ...]:  # noqa: ARG001
    """Columns of the patients table."""
    numbers = {column.name: arrays.numbers[:, i] for i, column in enumerate(schema.numbers)}
    levels = {column.name: arrays.levels[:, i] for i, column in enumerate(schema.categories)}
    described = []
    for column in schema.static:
        if column.kind == "categorical":
            codes = levels[column.name]
            counts = {level: int((codes == i).sum()) for i, level in enumerate(column.levels)}
            described.append(VariableSummary(name=column.name, missing=int((codes < 0).sum()), counts=counts))
            continue
        values = numbers[column.name]
        missing = int(np.isnan(values).sum())
        if column.kind == "binary":
            counts = {"0": int((values == 0).sum()), "1": int((values == 1).sum())}
            described.append(VariableSummary(name=column.name, missing=missing, counts=counts))
        else:
            described.append(
                VariableSummary(name=column.name, unit=column.unit, missing=missing, quantiles=_quantiles(values))
            )
    return tuple(described)


def summarise_series(arrays: PatientArrays, schema: Schema, name: str) -> tuple[VariableSummary, ...]:
    """Channels of one series."""
    values = np.asarray(arrays.raw[name])[arrays.present[name]]
    return tuple(
        VariableSummary(
            name=channel.name,
            unit=channel.unit,
            missing=int(np.isnan(values[:, :, i]).all(axis=1).sum()),
            quantiles=_quantiles(values[:, :, i]),
        )
        for i, channel in enumerate(schema.series[name].channels)
    )


def summarise_events(arrays: PatientArrays, schema: Schema, name: str) -> tuple[VariableSummary, ...]:
    """Items of one set of events."""
    amounts = arrays.raw[name][arrays.present[name]]
    counted = schema.events[name].aggregate != "any"
    return tuple(
        VariableSummary(
            name=item,
            counts={"given": int((amounts[:, i] > 0).sum())},
            quantiles=_quantiles(_positive(amounts[:, i])) if counted else None,
        )
        for i, item in enumerate(schema.events[name].items)
    )


def _positive(amounts: Float32[np.ndarray, " patient"]) -> Float32[np.ndarray, " given"]:
    given: Float32[np.ndarray, " given"] = amounts[amounts > 0]
    return given


def summarise_image(arrays: PatientArrays, schema: Schema, name: str) -> tuple[VariableSummary, ...]:  # noqa: ARG001
    """Mean gray of one kind of image."""
    pixels: Shaped[np.ndarray, "image _height _width"] = arrays.raw[name]
    means = np.array([pixels[i].mean() for i in np.flatnonzero(arrays.present[name])], dtype=np.float32)
    return (VariableSummary(name="mean gray", unit="of 65535", quantiles=_quantiles(means)),)
