"""Standard error of an AUC of so many patients."""

import numpy as np
from jaxtyping import Float64


def auc_standard_error(auc: Float64[np.ndarray, "*auc"], *, events: int, others: int) -> Float64[np.ndarray, "*auc"]:
    """Standard error where the AUC is truly this.

    Source: Hanley and McNeil 1982, Radiology 143:29, equation 1, with their exponential model for Q1 and Q2.

    Args:
        auc: one or several.
        events: patients with the event, at least 1.
        others: patients without it, at least 1.
    """
    both_events, both_others = auc / (2 - auc), 2 * np.square(auc) / (1 + auc)
    spread = auc * (1 - auc)
    spread = spread + (events - 1) * (both_events - np.square(auc)) + (others - 1) * (both_others - np.square(auc))
    return np.asarray(np.sqrt(np.maximum(spread, 0.0) / (events * others)))
