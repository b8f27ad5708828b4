"""Outcomes drawn from the true risk, with a few deaths and survivors at every hospital."""

import numpy as np
from numpy.typing import NDArray

from simulation.cohort.patients import SyntheticPatients, stream
from simulation.cohort.risk import RiskModel
from simulation.cohort.sites import SyntheticSite

SMALL_HOSPITAL = 30


def draw_outcomes(
    model: RiskModel, patients: SyntheticPatients, *, site: SyntheticSite, intercept: float, seed: int
) -> tuple[NDArray[np.int64], int]:
    """Outcome of each patient, and how many were turned to reach the least number of each outcome.

    Patient i dies where u_i < risk_i with u uniform. Every hospital of 30 or more gets at least two deaths and two
    survivors, a smaller one at least one of each (a folder without either breaks the data contract): the patients who
    came closest to dying, or to living, are turned (smallest distance between the log-odds of u and of the risk). So a
    hospital of 30 has 0.4 deaths more than its risks add up to, on average; one of 100 has next to none.
    """
    logit = intercept + model.true(patients).logit.sum(axis=1)
    u = stream(seed, "outcome", site.index).random(len(patients))
    distance = np.log(u / (1 - u)) - logit  # below zero where u < risk
    outcome = (distance < 0).astype(np.int64)
    least = min(len(patients) // 2, 2 if len(patients) >= SMALL_HOSPITAL else 1)
    by_distance = np.argsort(distance, kind="stable")
    forced = outcome.copy()
    forced[by_distance[:least]] = 1
    forced[by_distance[len(patients) - least :]] = 0
    return forced, int((forced != outcome).sum())
