"""Patients as the model takes them."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Bool, Float32, Int64, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Standardised inputs of the model, one row a patient.

    Attributes:
        numbers: value (standardised, missing imputed) and missing flag of each numeric or binary column.
        levels: index per categorical column; the last index of a column means missing.
        inputs: of every other modality. Of a series standardised value (0 where not measured), measured flag, and time
            since the channel's last value as a fraction of the grid, concatenated per channel group; of events the
            standardised aggregate per item; of images standardised gray values, one channel.
        present: whether the patient has the modality; absent inputs are zero and must not be read.
        outcome: 0.0 or 1.0.
    """

    numbers: Float32[Tensor, "batch number"]
    levels: Int64[Tensor, "batch category"]
    inputs: Mapping[str, Shaped[Tensor, "batch ..."]]
    present: Mapping[str, Bool[Tensor, "batch"]]
    outcome: Float32[Tensor, "batch"]
