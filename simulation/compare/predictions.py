"""Out-of-fold predictions of an arm: one row a patient and seed, kept as CSV."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from shared_model.evaluation.score_sums import ScoreSums

COLUMNS = ("site", "patient_id", "outcome", "logit")
KEY = ["site", "patient_id"]


def read_predictions(paths: Sequence[Path]) -> pd.DataFrame:
    """Predictions of several files, with the seed that each belongs to.

    Returns:
        Columns site, patient_id, outcome, logit, seed; no rows without files.
    """
    tables = [pd.read_csv(path, dtype={"site": str, "patient_id": str}) for path in paths]
    if not tables:
        return pd.DataFrame(columns=[*COLUMNS, "seed"])
    return pd.concat(tables, ignore_index=True)


def mean_over_seeds(predictions: pd.DataFrame) -> pd.DataFrame:
    """One row a patient: the mean of the logits that the seeds give; patients that some seed lacks are left out.

    Returns:
        Columns site, patient_id, outcome, logit; in the order of site and patient.
    """
    n_seeds = predictions["seed"].nunique()
    grouped = predictions.groupby(KEY, sort=True).agg(
        outcome=("outcome", "first"), logit=("logit", "mean"), seeds=("seed", "nunique")
    )
    return grouped[grouped["seeds"] == n_seeds].drop(columns="seeds").reset_index()


def score(predictions: pd.DataFrame) -> ScoreSums:
    """Sums of all patients' scores; hospitals count as strata."""
    sums = ScoreSums.zero()
    for _, rows in predictions.groupby("site", sort=True):
        sums = sums + ScoreSums.from_scores(
            rows["logit"].to_numpy(dtype=np.float64), rows["outcome"].to_numpy(dtype=np.int64)
        )
    return sums
