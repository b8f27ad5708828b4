"""The questions about refits of the head; their answers are sums (`refits`)."""

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from shared_model.config import MOST_REFITS
from shared_model.protocol.messages import ExplainRequest, Sha256, WholeModelRequest

RefitNumbers = Annotated[tuple[Annotated[int, Field(ge=0, le=MOST_REFITS)], ...], Field(max_length=MOST_REFITS + 1)]


class RefitRequest(WholeModelRequest):
    """Coordinator to hospital, in a simulation: gradient and Hessian of the head refitted on your resampled patients.

    Attributes:
        refits: number of each refit, by which the hospital draws how often a patient counts; 0 = each once.
        heads: under `heads`, weights and intercept of each of them (refit, column), float64.
    """

    array_fields: ClassVar[tuple[str, ...]] = (*WholeModelRequest.array_fields, "heads")
    refits: RefitNumbers
    heads: dict[str, np.ndarray] = Field(default_factory=dict)


class SizesRequest(WholeModelRequest):
    """Coordinator to hospital, in a simulation: sums of |phi| of refitted heads over your resampled patients.

    Attributes:
        refits: as in RefitRequest, likewise `heads`.
        background_id: as in ExplainRequest, likewise `background` and `background_present`.
    """

    array_fields: ClassVar[tuple[str, ...]] = (*ExplainRequest.array_fields, "heads")
    background_id: Sha256
    refits: RefitNumbers
    heads: dict[str, np.ndarray] = Field(default_factory=dict)
    background: dict[str, np.ndarray] = Field(default_factory=dict)
    background_present: dict[str, np.ndarray] = Field(default_factory=dict)
