"""One standardisation for all hospitals, from sums that add up over hospitals.

Every hospital sends sums over its training part (`statistics`); their total gives the same moments and medians as
pooled patients would, whatever the schema's ranges are.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64

from shared_model.errors import StudyError
from shared_model.model.batch import Batch
from shared_model.patient_arrays import PatientArrays
from shared_model.preprocessing.centred_sums import CentredSums
from shared_model.preprocessing.statistics import (
    GRAY_LEVELS,
    NUMBERS,
    StatisticsFrame,
    ask_until_done,
    compress_events,
    sum_features,
)
from shared_model.schema import Schema


@dataclass(frozen=True)
class Preprocessing:
    """What turns raw arrays into a batch; the same at every hospital, part of the model.

    Attributes:
        n: patients that the moments rest on.
        events: deaths among them.
        number_mean: mean of each number, in its unit; likewise `number_sd`.
        number_fill: what a missing number is replaced by: the median (numeric; see `quartiles`) or the mean (binary).
        series_mean: per series, mean of each channel, in its unit; likewise `series_sd`.
        event_mean: per event set, mean of each compressed item; likewise `event_sd`.
        image_mean: per image, mean gray value on a scale of 0 to 1; likewise `image_sd`.
    """

    n: int
    events: int
    number_mean: list[float]
    number_sd: list[float]
    number_fill: list[float]
    series_mean: dict[str, list[float]]
    series_sd: dict[str, list[float]]
    event_mean: dict[str, list[float]]
    event_sd: dict[str, list[float]]
    image_mean: dict[str, float]
    image_sd: dict[str, float]

    def to_json(self) -> str:
        """Text that `from_json` reads back to the same object, to the last bit."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """The object that `to_json` wrote."""
        return cls(**json.loads(text))

    def batch(
        self,
        arrays: PatientArrays,
        rows: Int64[np.ndarray, "row"],
        *,
        schema: Schema,
        device: torch.device,
        without: Collection[str] = (),
    ) -> Batch:
        """Standardised model inputs of some patients.

        Args:
            arrays: all patients of a hospital.
            rows: indices of the wanted patients.
            schema: the study that `arrays` and this preprocessing belong to.
            device: where the tensors go.
            without: images that are not needed, for they are the bulk.
        """
        numbers = arrays.numbers[rows]
        missing = np.isnan(numbers)
        filled = np.where(missing, np.asarray(self.number_fill), numbers)
        standard = (filled - np.asarray(self.number_mean)) / np.asarray(self.number_sd)
        n_levels = np.array([len(column.levels) for column in schema.categories], dtype=np.int64)
        levels = arrays.levels[rows]
        return Batch(
            numbers=_tensor(np.concatenate([standard, missing], axis=1), device),
            levels=torch.from_numpy(np.where(levels < 0, n_levels, levels)).to(device),
            series={name: _tensor(self._series(arrays, rows, name), device) for name in schema.series},
            events={name: _tensor(self._events(arrays, rows, name, schema), device) for name in schema.events},
            images={
                name: _tensor(self._images(arrays, rows, name), device) for name in schema.images if name not in without
            },
            present={name: torch.from_numpy(arrays.present[name][rows]).to(device) for name in schema.modalities},
            outcome=_tensor(arrays.outcome[rows], device),
        )

    def _series(self, arrays: PatientArrays, rows: Int64[np.ndarray, "row"], name: str) -> np.ndarray:
        values = arrays.series[name][rows]
        measured = ~np.isnan(values)
        standard = (values - np.asarray(self.series_mean[name])) / np.asarray(self.series_sd[name])
        n_steps = values.shape[1]
        steps = np.arange(n_steps).reshape(1, -1, 1)
        last = np.maximum.accumulate(np.where(measured, steps, -1), axis=1)
        gap = np.where(last < 0, n_steps, steps - last) / n_steps
        inputs = np.concatenate([np.where(measured, standard, 0.0), measured, gap], axis=2)
        return np.where(arrays.present[name][rows, None, None], inputs, 0.0)

    def _events(self, arrays: PatientArrays, rows: Int64[np.ndarray, "row"], name: str, schema: Schema) -> np.ndarray:
        values = compress_events(arrays.events[name][rows], schema.events[name])
        standard = (values - np.asarray(self.event_mean[name])) / np.asarray(self.event_sd[name])
        return np.where(arrays.present[name][rows, None], standard, 0.0)

    def _images(self, arrays: PatientArrays, rows: Int64[np.ndarray, "row"], name: str) -> np.ndarray:
        gray = arrays.images[name][rows].astype(np.float32) / GRAY_LEVELS
        standard = (gray - self.image_mean[name]) / self.image_sd[name]
        return np.where(arrays.present[name][rows, None, None], standard, 0.0)[:, None]


def fit_preprocessing(frame: StatisticsFrame, sums: Mapping[str, np.ndarray], schema: Schema) -> Preprocessing:
    """Preprocessing from the statistics step.

    Args:
        frame: after the last question.
        sums: total of the first question.
        schema: the study.

    Raises:
        StudyError: no patients, or no deaths, or only deaths among them: nothing can be learned.
    """
    n, events = int(sums["n"]), int(sums["events"])
    if not 0 < events < n:
        raise StudyError(
            f"training data of all hospitals: expected patients with and without the outcome, got {events} events "
            f"among {n} patients. Check the outcome column and the fold settings."
        )
    numbers = frame.moments[NUMBERS]
    # A median lies within one standard deviation of the mean; of few patients the bins are too wide to tell as much.
    median = np.clip(frame.quartiles.median, numbers.mean - numbers.sd, numbers.mean + numbers.sd)
    event_moments = {
        name: _mean_and_sd(sums[f"{name}/present"], sums[f"{name}/sum"], sums[f"{name}/square"])
        for name in schema.events
    }
    image_moments = {
        name: _mean_and_sd(
            np.asarray(sums[f"{name}/present"] * images.size**2), sums[f"{name}/sum"], sums[f"{name}/square"]
        )
        for name, images in schema.images.items()
    }
    return Preprocessing(
        n=n,
        events=events,
        number_mean=numbers.mean.tolist(),
        number_sd=_divisor(numbers).tolist(),
        number_fill=np.where(np.isnan(median), numbers.mean, median).tolist(),
        series_mean={name: frame.moments[name].mean.tolist() for name in schema.series},
        series_sd={name: _divisor(frame.moments[name]).tolist() for name in schema.series},
        event_mean={name: moments[0].tolist() for name, moments in event_moments.items()},
        event_sd={name: moments[1].tolist() for name, moments in event_moments.items()},
        image_mean={name: float(moments[0]) for name, moments in image_moments.items()},
        image_sd={name: float(moments[1]) for name, moments in image_moments.items()},
    )


def pooled_preprocessing(
    arrays: PatientArrays, rows: Int64[np.ndarray, "row"], schema: Schema, *, min_patients: int = 10
) -> Preprocessing:
    """Preprocessing of patients who are all in one place.

    Args:
        arrays: the patients.
        rows: indices of those to count.
        schema: the study.
        min_patients: see `statistics.ask_until_done`.
    """
    frame, sums = ask_until_done(
        lambda frame, _: sum_features(arrays, rows, schema, frame), schema, min_patients=min_patients
    )
    return fit_preprocessing(frame, sums, schema)


def _divisor(moments: CentredSums) -> Float64[np.ndarray, "column"]:
    """Standard deviations; 1 for a constant or never measured column, so that it becomes 0."""
    return np.where(moments.sd > 0, moments.sd, 1.0)


def _mean_and_sd(n: np.ndarray, total: np.ndarray, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moments of values on a scale of about 1; a constant or never measured value gets sd 1, so it becomes 0."""
    count = np.maximum(n, 1)
    mean = np.asarray(total / count)
    sd = np.sqrt(np.maximum(square / count - np.square(mean), 0.0))
    return mean, np.where(sd > 1e-6, sd, 1.0)


def _tensor(values: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)
