"""External validation: a finished model on hospitals that its training never saw."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from client.cohort_folder import list_hospitals
from client.patient.run_model import RunModel, open_model
from client.prediction import CPU, predict_site
from client.site import Site
from server.protocol.evaluation import describe_scores
from server.run_folder.folder import CONFIG, RunFolder
from server.run_folder.summary import print_metrics
from shared_model.errors import SettingsError, StudyError
from shared_model.evaluation.metrics import summarise
from shared_model.evaluation.score_sums import ScoreSums
from shared_model.privacy.suppression import SmallCellRule, suppressed_row

_SHOWN = (("calibration slope", "calibration_slope"), ("in the large", "calibration_intercept"), ("Brier", "brier"))


def validate_run(run: Path, cohort: Path, *, cache_dir: Path) -> dict[str, Any]:
    """Score a finished model on all patients of every hospital of a cohort, but for those whom its run has seen.

    Args:
        run: folder of the finished run.
        cohort: one folder a hospital, of the run's study.
        cache_dir: where decoded patients are kept.

    Returns:
        `run_id`, `model_sha256`, `cohort` (its name), `patients`, `same_names` (hospitals that are called as ones of
        the run), `left_out` (by hospital, how many patients were in the run), `not_known` (hospitals of which nothing
        here tells whether their patients were) and `test`, as in metrics.json: `pooled`, `sites`, `curves`.

    Raises:
        StudyError: no finished run, or too few patients with and without the outcome to say anything.
        SettingsError: no hospitals, hospitals of another study, or one all of whose patients were in the run.
        DataError: a hospital's folder breaks the data contract.
    """
    folders = list_hospitals(cohort)
    if not folders:
        raise SettingsError(f"cohort at {cohort}: expected one folder a hospital, got none.")
    pooled, rows, left_out = ScoreSums.zero(), dict[str, Mapping[str, Any]](), dict[str, int]()
    unknown = []
    for folder in folders:
        site = Site(folder.name, folder, cache_dir)
        found = predict_site(run, site)
        is_new = np.array([seen in {"none", "unknown"} for seen in found.seen])
        if not is_new.any():
            raise SettingsError(
                f"cohort at {cohort}: expected hospitals that the model has not seen, got {folder.name}, all of whose "
                "patients were in the run. How it does on those held out there stands in the run's metrics.json."
            )
        if not is_new.all():
            left_out[folder.name] = int((~is_new).sum())
        if "unknown" in found.seen:
            unknown.append(folder.name)
        scores = ScoreSums.from_scores(found.logit[is_new], found.outcome[is_new])
        model = open_model(run, site, device=CPU)
        metrics, rule = summarise(scores), SmallCellRule.of(model.settings)
        allowed = rule.may_release(n=metrics.n, events=metrics.events)
        rows[folder.name], pooled = metrics.to_dict() if allowed else suppressed_row(), pooled + scores
    _require_enough(pooled, rule)
    seen = {"left_out": left_out, "not_known": unknown}
    return {**_describe(run, model, cohort), **seen, "test": {**describe_scores(pooled, rows, rule), "failed": {}}}


def _require_enough(scores: ScoreSums, rule: SmallCellRule) -> None:
    metrics = summarise(scores)
    if not rule.may_release(n=metrics.n, events=metrics.events):
        raise StudyError(
            f"validation: expected at least {rule.min_patients} patients, {rule.min_events} of them with the outcome "
            f"and {rule.min_non_events} without (the run's min-patients, min-events, min-non-events), got {metrics.n} "
            f"with {metrics.events}: nothing can be estimated."
        )


def _describe(run: Path, model: RunModel, cohort: Path) -> dict[str, Any]:
    trained_at = {member["site"] for member in RunFolder(run).read_json(CONFIG).get("roster", [])}
    return {
        "run_id": model.run_id,
        "model_sha256": model.model_hash,
        "cohort": cohort.resolve().name,
        "patients": "all patients of each hospital whom the run has not seen",
        "same_names": sorted(trained_at & {folder.name for folder in list_hospitals(cohort)}),
    }


def print_validation(content: Mapping[str, Any], console: Console) -> None:
    """The table of hospitals, and calibration and Brier score of all together with their intervals."""
    console.print(f"model of run {content['run_id']} on {content['cohort']}: {content['patients']}", markup=False)
    print_metrics(content, console, events="events", title=content["cohort"])
    pooled = content["test"]["pooled"]
    if not pooled.get("suppressed"):
        told = (f"{label} {_with_interval(pooled, key)}" for label, key in _SHOWN)
        console.print("; ".join(told), markup=False, highlight=False)
    for hospital, n in content["left_out"].items():
        console.print(f"{hospital}: {n} patients were in the run and are left out.", markup=False, highlight=False)
    if doubtful := sorted(set(content["same_names"]) & set(content["not_known"])):
        names = ", ".join(doubtful)
        console.print(
            f"The run had hospitals of these names, too: {names}. Whether they are the same, names do not tell: of "
            "patients that the model was trained on, the figures are too good.",
            markup=False,
            highlight=False,
        )


def _with_interval(row: Mapping[str, Any], key: str) -> str:
    if row[key] is None:
        return "not defined"
    ends = row[f"{key}_ci"]
    return f"{row[key]:.3f}" + (f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else "")
