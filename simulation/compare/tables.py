"""The tables of a comparison, from predictions and records."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from client.site import Site
from shared_model.config import Settings
from shared_model.evaluation.metrics import summarise
from shared_model.evaluation.score_sums import sigmoid
from shared_model.shapley.strata import list_strata, stratum_members
from simulation.compare.arms import FEDERATED, POOLED, Arm, without
from simulation.compare.paired import auc_difference, pair_tables
from simulation.compare.predictions import KEY, mean_over_seeds, read_predictions, score
from simulation.compare.tasks import Task

MEASURES = ("auprc", "brier", "log_loss", "calibration_slope", "calibration_intercept", "ece")


@dataclass(frozen=True)
class Finished:
    """An arm whose tasks are all done.

    Attributes:
        arm: which.
        predictions: of every seed.
        mean: one row a patient, logits averaged over seeds.
        runs: what was trained.
        untrained: hospitals without a model, and why.
    """

    arm: Arm
    predictions: pd.DataFrame
    mean: pd.DataFrame
    runs: list[dict[str, Any]]
    untrained: dict[str, str]


def read_arm(arm: Arm, tasks: Sequence[Task]) -> Finished:
    """Everything that an arm's tasks left."""
    records = [json.loads(task.record_path.read_text(encoding="utf-8")) for task in tasks]
    predictions = read_predictions([task.predictions_path for task in tasks])
    return Finished(
        arm,
        predictions,
        mean_over_seeds(predictions),
        [run for record in records for run in record["runs"]],
        {site: why for record in records for site, why in record["untrained"].items()},
    )


def metrics_table(arms: Sequence[Finished]) -> pd.DataFrame:
    """A row an arm: metrics of the predictions averaged over seeds, the AUCs of single seeds, and what it costs."""
    rows = []
    for one in arms:
        metrics = summarise(score(one.mean))
        single = [summarise(score(rows)).auc for _, rows in one.predictions.groupby("seed")]
        aucs = [auc for auc in single if auc is not None]
        row: dict[str, Any] = {
            "arm": one.arm.name,
            "group": one.arm.group,
            "description": one.arm.description,
            "n": metrics.n,
            "events": metrics.events,
            "auc": metrics.auc,
            "auc_low": metrics.auc_ci[0] if metrics.auc_ci else None,
            "auc_high": metrics.auc_ci[1] if metrics.auc_ci else None,
            "auc_within": metrics.auc_within,
            "auc_within_low": metrics.auc_within_ci[0] if metrics.auc_within_ci else None,
            "auc_within_high": metrics.auc_within_ci[1] if metrics.auc_within_ci else None,
            **{name: getattr(metrics, name) for name in MEASURES},
            "single_seed_auc": float(np.mean(aucs)) if aucs else None,
            "single_seed_auc_min": min(aucs, default=None),
            "single_seed_auc_max": max(aucs, default=None),
            "models": len(one.runs),
            "untrained_hospitals": " ".join(sorted(one.untrained)),
        }
        for key in ("rounds", "seconds", "bytes"):
            row[f"{key}_per_model"] = float(np.mean([run[key] for run in one.runs])) if one.runs else None
        rows.append(row)
    return pd.DataFrame(rows)


def differences_table(arms: Sequence[Finished]) -> pd.DataFrame:
    """Every arm less the one that it is compared with, over the patients that both predict.

    A description, without a verdict: see `Difference`. Where the arm to compare with failed, the federated one takes
    its place.
    """
    by_name = {one.arm.name: one for one in arms}
    rows = []
    for one in arms:
        if one.arm.name == FEDERATED:
            continue
        reference = by_name.get(one.arm.against, by_name[FEDERATED])
        paired = pair_tables(one.mean, reference.mean)
        row: dict[str, Any] = {"arm": one.arm.name, "group": one.arm.group, "against": reference.arm.name}
        for prefix, within in (("", False), ("within_", True)):
            found = auc_difference(paired, within_sites=within)
            if found is not None:
                row |= {"n": found.n, "events": found.events}
                row |= {f"{prefix}difference": found.difference, f"{prefix}low": found.low, f"{prefix}high": found.high}
        rows.append(row)
    columns = ["arm", "group", "against", "n", "events"]
    columns += [f"{prefix}{key}" for prefix in ("", "within_") for key in ("difference", "low", "high")]
    return pd.DataFrame(rows, columns=columns)


def subgroups_table(arms: Sequence[Finished], sites: Sequence[Site], settings: Settings) -> pd.DataFrame:
    """AUC and calibration in the large of each stratum, for each arm."""
    members = _stratum_of_patients(sites, settings)
    rows = []
    for one in arms:
        joined = one.mean.merge(members, on=KEY)
        for (_, variable, label), part in joined.groupby(["position", "variable", "label"], sort=True):
            metrics = summarise(score(part))
            rows.append(
                {
                    "arm": one.arm.name,
                    "variable": variable,
                    "label": label,
                    "n": metrics.n,
                    "events": metrics.events,
                    "auc": metrics.auc,
                    "auc_low": metrics.auc_ci[0] if metrics.auc_ci else None,
                    "auc_high": metrics.auc_ci[1] if metrics.auc_ci else None,
                    "observed": metrics.events / metrics.n,
                    "predicted": float(sigmoid(part["logit"].to_numpy(dtype=np.float64)).mean()),
                }
            )
    return pd.DataFrame(rows)


def _stratum_of_patients(sites: Sequence[Site], settings: Settings) -> pd.DataFrame:
    parts = []
    for site in sites:
        strata = list_strata(site.schema, settings)
        rows = np.arange(len(site.patients))
        held = stratum_members(site.schema, settings, site.patients, rows)
        for stratum, mask in zip(strata, held, strict=True):
            if stratum.variable in {"", "outcome"} or not mask.any():
                continue
            ids = [site.patients.patient_ids[row] for row in rows[mask]]
            parts.append(
                pd.DataFrame(
                    {"site": site.name, "patient_id": ids, "variable": stratum.variable, "label": stratum.label}
                )
            )
    if not parts:
        return pd.DataFrame(columns=[*KEY, "variable", "label", "position"])
    order = {(stratum.variable, stratum.label): i for i, stratum in enumerate(list_strata(sites[0].schema, settings))}
    table = pd.concat(parts, ignore_index=True)
    position = [order[pair] for pair in zip(table["variable"], table["label"], strict=True)]
    return table.assign(position=position).sort_values("position", kind="stable")


def shares_table(arms: Sequence[Finished]) -> pd.DataFrame:
    """Shares of the modalities in each arm's models: mean, sd and range over folds and seeds."""
    rows = []
    for one in arms:
        found = pd.DataFrame([run["shares"] for run in one.runs if run["shares"]], dtype=float)
        if found.shape[1] < 2:  # a single modality has all of it
            continue
        rows += [
            {
                "arm": one.arm.name,
                "modality": name,
                "models": int(found[name].notna().sum()),
                "share": found[name].mean(),
                "sd": found[name].std(ddof=1) if len(found) > 1 else None,
                "lowest": found[name].min(),
                "highest": found[name].max(),
            }
            for name in found.columns
        ]
    return pd.DataFrame(rows, columns=["arm", "modality", "models", "share", "sd", "lowest", "highest"])


def evidence_table(arms: Sequence[Finished]) -> pd.DataFrame:
    """Each modality's share in the federated and the pooled model beside what leaving it out costs."""
    by_name = {one.arm.name: one for one in arms}
    shares = shares_table(arms)
    rows = []
    modalities = shares.loc[shares["arm"] == FEDERATED, "modality"].tolist()
    by_settings = {tuple(one.arm.settings.items()): one for one in arms if one.arm.kind == "federated"}
    for name in modalities:
        row: dict[str, Any] = {"modality": name}
        for arm in (FEDERATED, POOLED):
            found = shares[(shares["arm"] == arm) & (shares["modality"] == name)]
            if len(found):
                row |= {f"share_{arm}": float(found["share"].iloc[0]), f"sd_{arm}": found["sd"].iloc[0]}
        rest = by_settings.get(tuple(without(modalities, name).items()))
        if rest is not None:
            loss = auc_difference(pair_tables(by_name[FEDERATED].mean, rest.mean), within_sites=False)
            if loss is not None:
                row |= {"auc_lost_without": loss.difference, "low": loss.low, "high": loss.high}
        rows.append(row)
    return pd.DataFrame(rows)


def rank_agreement(evidence: pd.DataFrame) -> float | None:
    """Kendall's tau of shares and ablation losses over modalities; None with fewer than three."""
    if "auc_lost_without" not in evidence or len(evidence.dropna(subset=["auc_lost_without"])) < 3:
        return None
    complete = evidence.dropna(subset=["auc_lost_without"])
    return float(kendalltau(complete[f"share_{FEDERATED}"], complete["auc_lost_without"]).statistic)


def stability(arm: Finished) -> dict[str, float] | None:
    """How alike the shares of an arm's models are: mean L1 distance and mean rank agreement of two of them."""
    found = pd.DataFrame([run["shares"] for run in arm.runs if run["shares"]], dtype=float).dropna()
    if len(found) < 2 or found.shape[1] < 2:
        return None
    values: Mapping[int, np.ndarray] = dict(enumerate(found.to_numpy()))
    pairs = list(combinations(values, 2))
    distance = float(np.mean([np.abs(values[i] - values[j]).sum() for i, j in pairs]))
    ranks = [kendalltau(values[i], values[j]).statistic for i, j in pairs]
    return {"mean_l1": distance, "mean_kendall_tau": float(np.nanmean(ranks))}
