"""Series: measurements over time on a grid, through an LSTM beside summaries of each channel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Shaped

from shared_model.modalities.feature import Z_EDGES, Feature, edges_inside
from shared_model.modalities.modality import Modality, Rows, Sums
from shared_model.modalities.static import within
from shared_model.patient_arrays import PatientArrays
from shared_model.preprocessing.centred_sums import CentredSums
from shared_model.protocol.quantities import Quantities
from shared_model.quality.measure import (
    INTERVAL,
    KNOWN,
    LEVEL,
    LOG_LIMIT,
    SPAN,
    STILL,
    Measure,
    Measured,
    to_levels,
)
from shared_model.quality.series_measures import still_share, time_measures
from shared_model.schema import Schema, Series

if TYPE_CHECKING:
    from torch import nn

    from shared_model.config import Settings
    from shared_model.preprocessing.standardisation import Preprocessing
    from shared_model.preprocessing.statistics import StatisticsFrame

SUMMARIES = ("mean", "min", "max", "sd", "last", "measured")  # of each channel
TIME_PATTERN = "time pattern"
_SPREAD_EDGES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8)  # a standard deviation, in the cohort's
_FRACTION_EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class SeriesModality(Modality):
    """One series of several channels."""

    kind = "series"
    part_type = Series

    def __init__(self, name: str, schema: Schema) -> None:
        super().__init__(name, schema)
        self.series = schema.series[name]
        self.limits = np.array([channel.range for channel in self.series.channels], dtype=np.float64)

    def describe(self) -> str:
        """One line for people."""
        channels, grid = ", ".join(channel.name for channel in self.series.channels), self.series
        return f"series {self.name}: {channels}; {grid.steps} steps of {grid.step:g} {grid.time_unit}"

    def empty(self, n_patients: int) -> Shaped[np.ndarray, "patient ..."]:
        """Nothing measured."""
        return np.full((n_patients, self.series.steps, len(self.series.channels)), np.nan)

    def moments(self) -> Mapping[str, CentredSums]:
        """Of every channel."""
        return {self.name: CentredSums.start(self.limits, once=np.zeros(len(self.limits), dtype=bool))}

    def moment_values(self, arrays: PatientArrays, rows: Rows) -> Float64[np.ndarray, "patient time channel"]:
        """All cells."""
        return within(arrays.raw[self.name][rows], self.limits)

    def cells(self) -> int:
        """Steps of the grid."""
        return self.series.steps

    def counted_once(self) -> Quantities:
        """Nothing besides the moments."""
        return {}

    def count_once(self, arrays: PatientArrays, rows: Rows) -> Sums:  # noqa: ARG002
        """Nothing besides the moments."""
        return {}

    def fit(self, frame: StatisticsFrame, sums: Mapping[str, np.ndarray]) -> dict[str, Any]:  # noqa: ARG002
        """Mean and standard deviation of each channel."""
        moments = frame.moments[self.name]
        return {
            "series_mean": {self.name: moments.mean.tolist()},
            "series_sd": {self.name: moments.divisor.tolist()},
        }

    def standardise(
        self, arrays: PatientArrays, rows: Rows, preprocessing: Preprocessing
    ) -> Mapping[str, Shaped[np.ndarray, "patient ..."]]:
        """Value (0 where not measured), measured flag, and time since the last value, per channel group."""
        values = arrays.raw[self.name][rows]
        measured = ~np.isnan(values)
        mean, sd = np.asarray(preprocessing.series_mean[self.name]), np.asarray(preprocessing.series_sd[self.name])
        standard = (values - mean) / sd
        n_steps = values.shape[1]
        steps = np.arange(n_steps).reshape(1, -1, 1)
        last = np.maximum.accumulate(np.where(measured, steps, -1), axis=1)
        gap = np.where(last < 0, n_steps, steps - last) / n_steps
        inputs = np.concatenate([np.where(measured, standard, 0.0), measured, gap], axis=2)
        return {self.name: np.where(arrays.present[self.name][rows, None, None], inputs, 0.0)}

    def width(self, settings: Settings) -> int:
        """The LSTM's state and the summaries."""
        n_summaries = len(SUMMARIES) * len(self.series.channels) if settings.series_summaries else 0
        return settings.series_embedding + n_summaries

    def build_encoder(self, settings: Settings) -> nn.Module:
        """An LSTM beside summaries; either can be left out."""
        from shared_model.model.encoders.series import SeriesEncoder  # noqa: PLC0415 - torch

        return SeriesEncoder(
            n_channels=len(self.series.channels),
            hidden=settings.series_embedding,
            summaries=settings.series_summaries,
        )

    def features(self, encoder: Any, preprocessing: Preprocessing) -> tuple[Feature, ...]:
        """Each summary of each channel, and the LSTM's state as one."""
        return tuple(self._features(encoder, preprocessing))

    def _features(self, encoder: Any, preprocessing: Preprocessing) -> Iterator[Feature]:
        channels, hidden = self.series.channels, encoder.hidden
        for c, channel in enumerate(channels if encoder.n_summaries else ()):
            mean, sd = preprocessing.series_mean[self.name][c], preprocessing.series_sd[self.name][c]
            for s, summary in enumerate(SUMMARIES):
                columns = (hidden + s * len(channels) + c,)
                count = hidden + SUMMARIES.index("measured") * len(channels) + c
                label = f"{channel.name} {summary}"
                if summary == "measured":
                    yield Feature(label, "fraction", columns, edges=_FRACTION_EDGES)
                elif summary == "sd":
                    yield Feature(label, channel.unit, columns, edges=_SPREAD_EDGES, slope=sd, measured_count=count)
                else:
                    edges = edges_inside(Z_EDGES, offset=mean, slope=sd, limits=channel.range)
                    yield Feature(
                        label, channel.unit, columns, edges=edges, measured_count=count, offset=mean, slope=sd
                    )
        if hidden:
            yield Feature(TIME_PATTERN, "", tuple(range(hidden)))

    def measures(self) -> Iterator[Measure]:
        """How much was measured, levels, flat lines, and how densely and long in time."""
        channels = tuple(channel.name for channel in self.series.channels)
        ranges = tuple(channel.range for channel in self.series.channels)
        yield Measure(f"{self.name}/{KNOWN}", self.name, channels, is_count=False)
        yield Measure(f"{self.name}/{LEVEL}", self.name, channels, LOG_LIMIT, ranges=ranges)
        yield Measure(f"{self.name}/{STILL}", self.name, channels)
        yield Measure(f"{self.name}/{INTERVAL}", self.name, ("",), LOG_LIMIT)
        yield Measure(f"{self.name}/{SPAN}", self.name, ("",), LOG_LIMIT)

    def measure(self, arrays: PatientArrays, rows: Rows) -> Measured:
        """The same of these patients."""
        values = np.asarray(arrays.raw[self.name][self.having(arrays, rows)])
        measured = ~np.isnan(values)
        count = measured.sum(axis=1)
        total = np.where(measured, values, 0.0).sum(axis=1, dtype=np.float64)
        mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
        interval, duration = time_measures(measured.any(axis=2))
        return {
            f"{self.name}/{KNOWN}": count / values.shape[1],
            f"{self.name}/{LEVEL}": to_levels(mean, [channel.range for channel in self.series.channels]),
            f"{self.name}/{STILL}": np.stack([still_share(values[:, :, i]) for i in range(values.shape[2])], axis=1),
            f"{self.name}/{INTERVAL}": interval[:, None],
            f"{self.name}/{SPAN}": duration[:, None],
        }

    def correlated(self) -> tuple[str, ...]:
        """The channels."""
        return tuple(channel.name for channel in self.series.channels)

    def correlated_values(self, arrays: PatientArrays, rows: Rows) -> Float64[np.ndarray, "patient column"]:
        """The channels' means."""
        values = np.asarray(arrays.raw[self.name][rows], dtype=np.float64)
        n = (~np.isnan(values)).sum(axis=1)
        return np.where(n > 0, np.nansum(values, axis=1) / np.maximum(n, 1), np.nan)
