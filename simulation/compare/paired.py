"""Differences of two arms on the same patients, and how large a difference a cohort can show."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64
from scipy.stats import rankdata

from shared_model.evaluation.metric_intervals import Z_95
from simulation.compare.predictions import KEY


@dataclass(frozen=True)
class Difference:
    """AUC of one arm less that of another, over the same patients: a description, from which no verdict follows.

    DeLong's interval is for one fixed score a model. Here every fold has a model of its own, whose scores are pooled,
    so patients share models and are not independent; and models that other training patients would give are not in it.

    Attributes:
        n: patients that both arms predict.
        events: deaths among them.
        difference: of the AUCs.
        low: lower end of DeLong's 95 % interval, the models taken as fixed; likewise `high`.
    """

    n: int
    events: int
    difference: float
    low: float
    high: float


def pair_tables(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """The patients of both tables: site, patient_id, outcome, logit_one, logit_other."""
    return one.merge(other.drop(columns="outcome"), on=KEY, suffixes=("_one", "_other"))


def auc_difference(paired: pd.DataFrame, *, within_sites: bool) -> Difference | None:
    """DeLong's paired difference; None without a pair of a death and a survivor.

    Args:
        paired: from `pair_tables`.
        within_sites: only pairs of patients of the same hospital count; hospitals are independent strata.

    Source: DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837.
    """
    groups = [rows for _, rows in paired.groupby("site", sort=True)] if within_sites else [paired]
    total = pairs = variance = 0.0
    for rows in groups:
        outcome = rows["outcome"].to_numpy(dtype=np.int64)
        n_events, n_others = int(outcome.sum()), int((1 - outcome).sum())
        if not (n_events and n_others):
            continue
        of_events, of_others = _placement_differences(
            rows["logit_one"].to_numpy(dtype=np.float64), rows["logit_other"].to_numpy(dtype=np.float64), outcome
        )
        weight = n_events * n_others
        total += weight * float(of_events.mean())
        pairs += weight
        variance += weight**2 * (_variance(of_events) / n_events + _variance(of_others) / n_others)
    if not pairs:
        return None
    difference, half = total / pairs, Z_95 * math.sqrt(variance) / pairs
    events = int(paired["outcome"].sum())
    return Difference(len(paired), events, difference, difference - half, difference + half)


def _placement_differences(
    one: Float64[np.ndarray, "patient"], other: Float64[np.ndarray, "patient"], outcome: Int64[np.ndarray, "patient"]
) -> tuple[Float64[np.ndarray, "event"], Float64[np.ndarray, "survivor"]]:
    """Per death the share of survivors below it, per survivor the share of deaths above, one score less the other."""
    died = outcome == 1
    parts = []
    for logit in (one, other):
        everyone = rankdata(logit)
        below = (everyone[died] - rankdata(logit[died])) / (~died).sum()
        above = 1 - (everyone[~died] - rankdata(logit[~died])) / died.sum()
        parts.append((below, above))
    (below_one, above_one), (below_other, above_other) = parts
    return below_one - below_other, above_one - above_other


def _variance(values: Float64[np.ndarray, "patient"]) -> float:
    """Sample variance; of a single value its square, which overstates rather than hides it."""
    return float(values.var(ddof=1)) if len(values) > 1 else float(np.square(values).sum())
