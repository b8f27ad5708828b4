"""One standardisation for all hospitals, from sums that add up over hospitals.

Every hospital sends sums over its training part (`statistics`); their total gives the same moments and medians as
pooled patients would, whatever the schema's ranges are.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from shared_model.errors import StudyError
from shared_model.modalities.registry import open_modalities
from shared_model.modalities.static import LEVELS, NUMBERS
from shared_model.model.batch import Batch
from shared_model.patient_arrays import PatientArrays
from shared_model.preprocessing.statistics import StatisticsFrame, ask_until_done, sum_features
from shared_model.schema import STATIC, Schema

_BY_MODALITY = ("series_mean", "series_sd", "event_mean", "event_sd", "image_mean", "image_sd", "further")


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
        further: per modality of a kind that another package adds, what its class fits.
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
    further: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def to_json(self) -> str:
        """Text that `from_json` reads back to the same object, to the last bit."""
        content = dataclasses.asdict(self)
        if not self.further:
            del content["further"]  # so that studies without such kinds keep their text, and its hash
        return json.dumps(content, sort_keys=True)

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
            without: modalities, other than static, whose inputs are not needed: images are the bulk.
        """
        inputs = {
            key: _tensor(values, device)
            for name, each in open_modalities(schema).items()
            if name == STATIC or name not in without
            for key, values in each.standardise(arrays, rows, self).items()
        }
        return Batch(
            numbers=inputs.pop(NUMBERS),
            levels=inputs.pop(LEVELS),
            inputs=inputs,
            present={name: torch.from_numpy(arrays.present[name][rows]).to(device) for name in schema.modalities},
            outcome=_tensor(arrays.outcome[rows].astype(np.float32), device),
        )


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
    fields: dict[str, Any] = {name: {} for name in _BY_MODALITY}
    for each in open_modalities(schema).values():
        for name, value in each.fit(frame, sums).items():
            fields[name] = {**fields[name], **value} if name in _BY_MODALITY else value
    return Preprocessing(n=n, events=events, **fields)


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


def _tensor(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """Float32; indices stay whole numbers."""
    whole = np.issubdtype(values.dtype, np.integer)
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64 if whole else np.float32)).to(device)
