"""A finished model on hospitals that it never saw."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from client.prediction import predict_site
from client.site import Site
from shared_model.errors import SettingsError, StudyError
from simulation.cli import app
from simulation.finished.validation import validate_run
from tests.client.finished_run import FinishedRun, finish_run
from tests.server.small_cohort import write_small_cohort


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return finish_run(tmp_path_factory.mktemp("validation"))


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Hospitals of the same study with other patients, of whom fewer than five died at one."""
    cohort = write_small_cohort(tmp_path / "other", images=True, series=True, hospitals=2, patients=80)
    (cohort / "east").rename(cohort / "harbour")
    (cohort / "north").rename(cohort / "hill")
    return cohort


def test_pooled_auc_is_that_of_all_patients(finished: FinishedRun, other: Path, tmp_path: Path) -> None:
    content = validate_run(finished.run, other, cache_dir=tmp_path / "cache")

    found = [predict_site(finished.run, Site(name, other / name, tmp_path / "cache")) for name in ("harbour", "hill")]
    logit, outcome = (np.concatenate([getattr(each, part) for each in found]) for part in ("logit", "outcome"))
    pooled = content["test"]["pooled"]
    assert (pooled["n"], pooled["events"]) == (160, int(outcome.sum()))
    assert pooled["auc"] == pytest.approx(roc_auc_score(outcome, logit), abs=2e-3)  # logits are rounded to bins
    low, high = pooled["auc_ci"]
    assert low < pooled["auc"] < high
    assert pooled["calibration_intercept_ci"] is not None
    assert set(content["test"]["sites"]) == {"harbour", "hill"}
    assert content["test"]["curves"]["calibration"]
    assert content["patients"] == "all patients of each hospital whom the run has not seen"
    assert (content["same_names"], content["left_out"]) == ([], {})


def test_hospitals_that_the_model_was_trained_at_are_refused(finished: FinishedRun) -> None:
    with pytest.raises(SettingsError, match="expected hospitals that the model has not seen, got east"):
        validate_run(finished.run, finished.cohort, cache_dir=finished.cache)


def test_patients_of_the_run_among_new_ones_are_left_out(finished: FinishedRun, tmp_path: Path) -> None:
    shutil.copytree(finished.cohort, tmp_path / "later")
    for name in ("east", "north", "south"):
        path = tmp_path / "later" / name / "patients.csv"
        table = pd.read_csv(path)
        new = table.assign(patient_id=[f"new-{i}" for i in range(len(table))])
        pd.concat([table, new]).to_csv(path, index=False)

    content = validate_run(finished.run, tmp_path / "later", cache_dir=finished.cache)

    assert content["left_out"] == {"east": 60, "north": 60, "south": 60}
    assert content["test"]["pooled"]["n"] == 180


def test_names_that_the_run_had_too_are_told(finished: FinishedRun, tmp_path: Path) -> None:
    content = validate_run(finished.run, finished.cohort, cache_dir=tmp_path / "elsewhere")

    assert content["same_names"] == content["not_known"] == ["east", "north", "south"]


def test_too_few_deaths_say_so(finished: FinishedRun, tmp_path: Path) -> None:
    few = write_small_cohort(tmp_path / "few", images=True, series=True, hospitals=1, patients=9)

    with pytest.raises(StudyError, match=r"expected at least 10 patients, 5 of them with the outcome .* nothing can"):
        validate_run(finished.run, few, cache_dir=tmp_path / "cache")


def test_command_shows_intervals_and_writes_a_new_file(finished: FinishedRun, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "validation.json"
    command = ["validate", "--run", str(finished.run), "--cohort", str(other), "--out", str(out)]

    first, again = CliRunner().invoke(app, command), CliRunner().invoke(app, command)

    assert first.exit_code == 0, first.output
    assert "on other: all patients of each hospital whom the run has not seen" in " ".join(first.output.split())
    assert "calibration slope" in first.output
    assert json.loads(out.read_text(encoding="utf-8"))["cohort"] == "other"
    assert again.exit_code == 1
