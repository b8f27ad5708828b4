from collections.abc import Callable

import numpy as np
import pytest
import torch

from shared_model.model.batch import Batch
from shared_model.patient_arrays import PatientArrays
from shared_model.preprocessing.standardisation import pooled_preprocessing
from shared_model.schema import Schema


@pytest.fixture(scope="module")
def twelve(small_study: Schema, draw_patients: Callable[..., PatientArrays]) -> Batch:
    """Twelve patients; some lack the vitals, some the drugs, every second the X-ray."""
    arrays, rows = draw_patients(12), np.arange(12)
    preprocessing = pooled_preprocessing(arrays, rows, small_study)
    return preprocessing.batch(arrays, rows, schema=small_study, device=torch.device("cpu"))
