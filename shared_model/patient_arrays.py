"""Patients as a hospital measured them, as arrays."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64, Shaped


@dataclass(frozen=True)
class PatientArrays:
    """All patients of one hospital in raw units, one row a patient. Stays at the hospital.

    Attributes:
        patient_ids: unique, in the order of patients.*.
        outcome: 0 or 1; -1 = not known, only where a hospital was read to score its patients.
        numbers: numeric and binary static columns in schema order; NaN = missing.
        levels: index of the level per categorical static column in schema order; -1 = missing.
        raw: of every other modality, as its kind has them; may be memory-mapped. Of a series values on the grid
            [patient, time, channel] (NaN = not measured); of events the aggregate per item (any: 0/1; count; dose; 0
            where not given or not recorded); of images gray values 0..65535 [patient, height, width] (0 where absent).
        present: per modality of the schema, whether the patient has it.
    """

    patient_ids: tuple[str, ...]
    outcome: Int8[np.ndarray, "patient"]
    numbers: Float64[np.ndarray, "patient number"]
    levels: Int64[np.ndarray, "patient category"]
    raw: Mapping[str, Shaped[np.ndarray, "patient ..."]]
    present: Mapping[str, Bool[np.ndarray, "patient"]]

    def __len__(self) -> int:
        return len(self.patient_ids)
