"""Area under the ROC curve when the probability of death is known: no noise from drawing outcomes."""

import numpy as np

from simulation.cohort.patients import Vector


def expected_auc(score: Vector, risk: Vector) -> float:
    """Probability that a patient who dies scores above one who lives; ties count half.

    Args:
        score: what ranks the patients.
        risk: probability of death of each, not all 0 and not all 1; drawn outcomes give the ordinary AUC.
    """
    ordered, pairs = pair_counts(score, risk)
    return ordered / pairs


def pair_counts(score: Vector, risk: Vector) -> tuple[float, float]:
    """Expected number of (death, survivor) pairs in the right order, ties as half, and of all such pairs."""
    values, rank = np.unique(score, return_inverse=True)
    deaths = np.bincount(rank, weights=risk, minlength=len(values))
    lives = np.bincount(rank, weights=1 - risk, minlength=len(values))
    below = np.cumsum(lives) - lives
    return float(deaths @ (below + lives / 2)), float(deaths.sum() * lives.sum())
