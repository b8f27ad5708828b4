"""`hipfed-sim bench pooled`: the federated model against the same model trained on pooled patients."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from client.cohort_folder import list_hospitals
from client.data import cohort_cache_dir
from client.site import Site
from client.worker.answering import Worker
from server.run_folder.folder import RunFolder
from server.study import run_study
from shared_model.config import Settings, parse_settings
from shared_model.evaluation.metrics import Metrics, summarise
from shared_model.evaluation.score_quantities import unpack_scores
from shared_model.evaluation.score_sums import ScoreSums
from shared_model.schema import Schema, load_schema
from simulation.in_process import InProcessLink, accept_all
from simulation.pooled import PooledSite


def bench_pooled(
    cohort: Path, *, seeds: int, folds: int, assignments: Mapping[str, str], console: Console
) -> dict[str, Any]:
    """Pooled test AUC of both arms, for each seed over the same folds and patients.

    The federated arm goes through the whole protocol, with hospitals in this process.

    Args:
        cohort: schema.toml and one folder a hospital.
        seeds: how many seeds, from 0; each draws other splits and other random weights.
        folds: how many of the folds are held out in turn; their predictions are pooled.
        assignments: settings of both arms.
        console: where progress is shown.

    Returns:
        Per seed both AUCs with their intervals, and the mean difference federated - pooled.
    """
    schema = load_schema(cohort / "schema.toml")
    hospitals = tuple(Site(folder.name, folder, cohort_cache_dir(cohort)) for folder in list_hospitals(cohort))
    pooled = PooledSite("pooled", hospitals[0].folder, cohort_cache_dir(cohort), hospitals=hospitals)
    rows = []
    for seed in range(seeds):
        plans = [parse_settings({**assignments, "seed": seed, "fold": fold}) for fold in range(folds)]
        federated_arm = _score(hospitals, plans, schema)
        pooled_arm = _score((pooled,), [plan.model_copy(update={"min_sites": 1}) for plan in plans], schema)
        rows.append({"seed": seed, "federated": federated_arm.to_dict(), "pooled": pooled_arm.to_dict()})
        console.print(f"seed {seed}: federated AUC {federated_arm.auc:.4f}, pooled AUC {pooled_arm.auc:.4f}")
    means = {arm: float(np.mean([row[arm]["auc"] for row in rows])) for arm in ("federated", "pooled")}  # type: ignore[index]
    return {
        "cohort": cohort.name,
        "folds": folds,
        "settings": dict(assignments),
        "seeds": rows,
        "mean_auc": means,
        "mean_difference": means["federated"] - means["pooled"],
    }


def _score(sites: tuple[Site, ...], plans: list[Settings], schema: Schema) -> Metrics:
    sums = ScoreSums.zero()
    link = InProcessLink([Worker(site, simulated=True) for site in sites])
    for settings in plans:
        with tempfile.TemporaryDirectory(prefix="hipfed-bench-") as folder:
            accepting = accept_all(settings, [site.name for site in sites])
            run_study(link, schema=schema, settings=accepting, folder=RunFolder(Path(folder)))
            sums = sums + unpack_scores(RunFolder(Path(folder)).read_scores())
    return summarise(sums)
