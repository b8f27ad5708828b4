"""Events: a set of items that a patient did or did not get, as any, count or dose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float64, Shaped

from shared_model.modalities.feature import Z_EDGES, Feature, edges_inside
from shared_model.modalities.modality import Modality, Rows, Sums
from shared_model.modalities.moments import mean_and_sd
from shared_model.patient_arrays import PatientArrays
from shared_model.protocol.quantities import MAX_PATIENTS, Quantities, Quantity
from shared_model.quality.measure import LEVEL, LOG_LIMIT, Measure, Measured, to_level
from shared_model.schema import Events, Schema
from shared_model.shapley.common_background import BIN_WIDTH

if TYPE_CHECKING:
    from torch import nn

    from shared_model.config import Settings
    from shared_model.preprocessing.standardisation import Preprocessing
    from shared_model.preprocessing.statistics import StatisticsFrame

_DOSES = (0.0, np.inf)


class EventsModality(Modality):
    """One set of events; its standardised aggregates enter the fusion as they are."""

    kind = "events"
    part_type = Events

    def __init__(self, name: str, schema: Schema) -> None:
        super().__init__(name, schema)
        self.events = schema.events[name]

    def describe(self) -> str:
        """One line for people."""
        return f"events {self.name}: {self.events.aggregate} of {', '.join(self.events.items)}"

    @property
    def page_kind(self) -> str:
        """How they are counted."""
        return self.events.aggregate

    def empty(self, n_patients: int) -> Shaped[np.ndarray, "patient ..."]:
        """No item given."""
        return np.zeros((n_patients, len(self.events.items)), dtype=np.float32)

    def counted_once(self) -> Quantities:
        """Sum and sum of squares of each item."""
        # The logarithm of a count or dose stays below 50 for every finite float a hospital would record.
        limit, shape = MAX_PATIENTS * 2500.0, (len(self.events.items),)
        return {f"{self.name}/{part}": Quantity(shape, limit, 0) for part in ("sum", "square")}

    def count_once(self, arrays: PatientArrays, rows: Rows) -> Sums:
        """Over the patients whose events were recorded."""
        here = self.having(arrays, rows)
        values = compress_events(arrays.raw[self.name][here], self.events).astype(np.float64)
        return {f"{self.name}/sum": values.sum(axis=0), f"{self.name}/square": np.square(values).sum(axis=0)}

    def fit(self, frame: StatisticsFrame, sums: Mapping[str, np.ndarray]) -> dict[str, Any]:  # noqa: ARG002
        """Mean and standard deviation of each compressed item."""
        name = self.name
        mean, sd = mean_and_sd(sums[f"{name}/present"], sums[f"{name}/sum"], sums[f"{name}/square"])
        return {"event_mean": {name: mean.tolist()}, "event_sd": {name: sd.tolist()}}

    def standardise(
        self, arrays: PatientArrays, rows: Rows, preprocessing: Preprocessing
    ) -> Mapping[str, Shaped[np.ndarray, "patient ..."]]:
        """Standardised aggregate of each item."""
        mean, sd = self._mean_and_sd(preprocessing)
        standard = (compress_events(arrays.raw[self.name][rows], self.events) - mean) / sd
        return {self.name: np.where(arrays.present[self.name][rows, None], standard, 0.0)}

    def _mean_and_sd(self, preprocessing: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(preprocessing.event_mean[self.name]), np.asarray(preprocessing.event_sd[self.name])

    def width(self, settings: Settings) -> int:  # noqa: ARG002
        """A column an item."""
        return len(self.events.items)

    def build_encoder(self, settings: Settings) -> nn.Module:  # noqa: ARG002
        """The items as they are."""
        from shared_model.model.encoders.direct import EventsEncoder  # noqa: PLC0415 - torch

        return EventsEncoder(n_items=len(self.events.items))

    def features(self, encoder: Any, preprocessing: Preprocessing) -> tuple[Feature, ...]:  # noqa: ARG002
        """A feature an item."""
        return tuple(self._features(preprocessing))

    def _features(self, preprocessing: Preprocessing) -> Iterator[Feature]:
        for i, item in enumerate(self.events.items):
            mean, sd = preprocessing.event_mean[self.name][i], preprocessing.event_sd[self.name][i]
            if self.events.aggregate == "any":
                yield Feature(item, "", (i,), levels=("0", "1"), binary=True, offset=mean, slope=sd)
            else:
                edges = edges_inside(Z_EDGES, offset=mean, slope=sd, limits=_DOSES)
                yield Feature(item, "", (i,), edges=edges, logarithmic=True, offset=mean, slope=sd)

    def make_valid(
        self,
        values: Float64[np.ndarray, "row column"],
        uniforms: Float64[np.ndarray, "row column"],  # noqa: ARG002
        sums: Mapping[str, np.ndarray],  # noqa: ARG002
        *,
        encoder: Any,  # noqa: ARG002
        preprocessing: Preprocessing,
    ) -> Float64[np.ndarray, "row column"]:
        """0 or 1 where an item was given or not; counts and doses at least 0."""
        mean, sd = self._mean_and_sd(preprocessing)
        compressed = np.maximum(mean + sd * values, 0.0)
        if self.events.aggregate == "any":
            compressed = (compressed > 0.5).astype(np.float64)
        elif self.events.aggregate == "count":
            compressed = compress_events(np.rint(np.expm1(compressed)), self.events)
        else:
            nearest = np.arcsinh(values) < np.arcsinh(-mean / sd) + BIN_WIDTH  # in the bin of "not given"
            compressed = np.where(nearest, 0.0, compressed)
        return np.asarray((compressed - mean) / sd)

    def value_of(
        self,
        feature: Feature,
        arrays: PatientArrays,
        row: int,
        z: Float64[np.ndarray, "1"],  # noqa: ARG002
    ) -> float | str | None:
        """The aggregate as it was recorded."""
        return float(arrays.raw[self.name][row, self.events.items.index(feature.name)])

    def measures(self) -> Iterator[Measure]:
        """Levels of doses: an amount in another unit shows there."""
        if self.events.aggregate == "dose":
            items = self.events.items
            yield Measure(
                f"{self.name}/{LEVEL}", self.name, items, LOG_LIMIT, ranges=(_DOSES,) * len(items), is_dose=True
            )

    def measure(self, arrays: PatientArrays, rows: Rows) -> Measured:
        """The same of these patients."""
        if self.events.aggregate != "dose":
            return {}
        return {f"{self.name}/{LEVEL}": to_level(arrays.raw[self.name][self.having(arrays, rows)], _DOSES)}

    def correlated(self) -> tuple[str, ...]:
        """The items."""
        return self.events.items

    def correlated_values(self, arrays: PatientArrays, rows: Rows) -> Float64[np.ndarray, "patient column"]:
        """The aggregates."""
        present = arrays.present[self.name][rows, None]
        return np.where(present, arrays.raw[self.name][rows], np.nan).astype(np.float64)


def compress_events(values: Float[np.ndarray, "patient item"], events: Events) -> Float[np.ndarray, "patient item"]:
    """0/1 as it is; counts and doses, which are skewed, as log(1 + x)."""
    return values if events.aggregate == "any" else np.log1p(values)
