"""Who dies: drawn from the true risk, with at least two deaths and two survivors at every hospital of 30 or more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulation.cohort.patients import Patients, stream
from simulation.cohort.risk import RiskModel, death_risk
from simulation.cohort.sites import Site

LEAST_OF_EACH_OUTCOME = 2
SMALL_HOSPITAL = 30


def draw_outcomes(
    model: RiskModel, patients: Patients, *, site: Site, intercept: float, seed: int
) -> tuple[NDArray[np.int64], int]:
    """Outcome of each patient, and how many were turned to reach the least number of each outcome.

    Patient i dies where u_i < risk_i with u uniform. Where a hospital of 30 or more has fewer than two deaths (or
    survivors), the patients who came closest to dying (smallest odds of u against risk) or to living are turned. So a
    hospital of 30 has 0.4 deaths more than its risks add up to, on average; one of 100 has next to none.
    """
    true = model.true(patients)
    risk = death_risk(intercept + true.logit.sum(axis=1), true.variance)
    u = stream(seed, "outcome", site.index).random(len(patients))
    outcome = (u < risk).astype(np.int64)
    turned = 0
    if len(patients) >= SMALL_HOSPITAL:
        distance = np.log(u / (1 - u)) - np.log(risk / (1 - risk))  # below zero: dies
        by_distance = np.argsort(distance, kind="stable")
        turned += int((outcome[by_distance[:LEAST_OF_EACH_OUTCOME]] == 0).sum())
        outcome[by_distance[:LEAST_OF_EACH_OUTCOME]] = 1
        turned += int((outcome[by_distance[-LEAST_OF_EACH_OUTCOME:]] == 1).sum())
        outcome[by_distance[-LEAST_OF_EACH_OUTCOME:]] = 0
    return outcome, turned
