"""Score sums as quantities of a message: each sum travels under its own name, because their magnitudes differ."""

from collections.abc import Mapping

import numpy as np

from shared_model.evaluation.score_sums import N_BINS, SCORE_COUNTS, SCORE_SUMS, ScoreSums
from shared_model.protocol.quantities import MAX_PATIENTS, Quantities, Quantity

_PAIRS = MAX_PATIENTS**2 / 4
_LIMITS: dict[str, float] = {
    "n": MAX_PATIENTS,
    "events": MAX_PATIENTS,
    "brier-sum": MAX_PATIENTS,
    "log-loss-sum": MAX_PATIENTS * 1000.0,
    "concordant": _PAIRS,
    "pairs": _PAIRS,
    "concordant-variance": _PAIRS * MAX_PATIENTS / 2,
    "variance-bound": _PAIRS * MAX_PATIENTS / 2,
}


def score_quantities() -> Quantities:
    """The arrays of `pack_scores`."""
    sums = {f"score/{name}": Quantity((), limit, 0) for name, limit in _LIMITS.items()}
    return {SCORE_COUNTS: Quantity((2, N_BINS), MAX_PATIENTS, 0), **sums}


def pack_scores(scores: ScoreSums) -> dict[str, np.ndarray]:
    """Arrays to be added over hospitals."""
    arrays = scores.to_arrays()
    sums = {f"score/{name}": arrays[SCORE_SUMS][i] for i, name in enumerate(_LIMITS)}
    return {SCORE_COUNTS: arrays[SCORE_COUNTS], **{name: np.asarray(value) for name, value in sums.items()}}


def unpack_scores(arrays: Mapping[str, np.ndarray]) -> ScoreSums:
    """Score sums from a reply or from a total over hospitals; other names are ignored.

    Raises:
        ProtocolError: the sums contradict each other.
    """
    counts = np.rint(arrays[SCORE_COUNTS]).astype(np.int64)
    sums = np.array([float(arrays[f"score/{name}"]) for name in _LIMITS])
    return ScoreSums.from_arrays({SCORE_COUNTS: counts, SCORE_SUMS: sums})
