"""Scores of a hospital's patients by a finished model, with and without outcome."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from client.cli import app
from client.prediction import predict, predict_site
from server.run_folder.folder import RunFolder
from shared_model.errors import DataError, SettingsError, StudyError
from shared_model.evaluation.metrics import summarise
from shared_model.evaluation.score_quantities import unpack_scores
from shared_model.evaluation.score_sums import ScoreSums
from tests.client.finished_run import FinishedRun, finish_run
from tests.client.patient_page.explained_patients import PATIENT, explain


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return finish_run(tmp_path_factory.mktemp("prediction"))


def _without_outcome(finished: FinishedRun, folder: Path, *, column: bool) -> Path:
    """The hospital's data, in which nobody's outcome is known."""
    shutil.copytree(finished.cohort / "east", folder / "east")
    shutil.copy(finished.cohort / "schema.toml", folder / "schema.toml")
    table = pd.read_csv(folder / "east" / "patients.csv")
    table = table.assign(died=np.nan) if column else table.drop(columns="died")
    table.to_csv(folder / "east" / "patients.csv", index=False)
    return folder / "east"


def test_risk_of_a_patient_is_that_of_his_explanation(finished: FinishedRun) -> None:
    table = predict(finished.run, finished.cohort / "east").set_index("patient_id")

    assert table.loc[PATIENT, "risk"] == pytest.approx(
        explain(finished, PATIENT)["prediction"]["probability"], abs=1e-6
    )


def test_risks_of_the_test_parts_have_the_auc_of_the_run(finished: FinishedRun) -> None:
    scores = ScoreSums.zero()
    for name in ("east", "north", "south"):
        site = finished.site(name)
        found = predict_site(finished.run, site)
        split = site.split(finished.model(name).settings)
        for part, rows in (("train", split.train), ("val", split.val), ("test", split.test)):
            assert {found.seen[row] for row in rows} == {part}
        rows = split.test
        scores = scores + ScoreSums.from_scores(found.logit[rows], found.outcome[rows])

    metrics, of_run = summarise(scores), summarise(unpack_scores(RunFolder(finished.run).read_scores()))
    assert metrics.n == of_run.n
    assert metrics.auc == pytest.approx(of_run.auc, abs=1e-6)
    assert metrics.log_loss == pytest.approx(of_run.log_loss, abs=1e-6)


@pytest.mark.parametrize("column", [True, False], ids=["empty", "no-column"])
def test_outcome_need_not_be_known(finished: FinishedRun, tmp_path: Path, *, column: bool) -> None:
    known = predict(finished.run, finished.cohort / "east")

    unknown = predict(finished.run, _without_outcome(finished, tmp_path, column=column))

    pd.testing.assert_frame_equal(unknown, known)
    assert list(known.columns) == [
        *("patient_id", "risk", "part_of_run", "has_static", "has_vitals", "has_drugs", "has_hip")
    ]
    assert not known["has_hip"].all()
    assert set(known["part_of_run"]) == {"unknown"}


def test_patients_of_the_run_are_told_in_a_later_export_that_holds_them(finished: FinishedRun, tmp_path: Path) -> None:
    """A patient more, a value mended, another folder: they are the same patients."""
    shutil.copytree(finished.cohort, tmp_path / "later")
    table = pd.read_csv(tmp_path / "later" / "east" / "patients.csv")
    new = table.iloc[:1].assign(patient_id="new-1")
    pd.concat([table, new]).assign(age=70).to_csv(tmp_path / "later" / "east" / "patients.csv", index=False)

    found = predict(finished.run, tmp_path / "later" / "east", cache=finished.cache)

    assert found["part_of_run"].tolist()[-1] == "none"
    assert set(found["part_of_run"].iloc[:-1]) == {"train", "val", "test"}
    found = predict(finished.run, tmp_path / "later" / "east", cache=tmp_path / "other")
    assert set(found["part_of_run"]) == {"unknown"}


def test_modality_that_is_called_like_a_column_loses_no_risk(tmp_path: Path) -> None:
    finished = finish_run(tmp_path, _call_images_risk)

    found = predict(finished.run, finished.cohort / "east")

    assert found["risk"].between(0, 1).all()
    assert found["risk"].nunique() > 10
    assert found["has_risk"].dtype == bool


def _call_images_risk(cohort: Path) -> None:
    for path in (cohort / "schema.toml", *cohort.glob("*/images.csv")):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("[images.hip]", "[images.risk]").replace(",hip,", ",risk,"), encoding="utf-8")


def test_model_of_a_run_that_was_stopped_before_its_test_is_refused(finished: FinishedRun, tmp_path: Path) -> None:
    shutil.copytree(finished.run, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()

    with pytest.raises(StudyError, match=r"metrics\.json: expected a file of a finished run"):
        predict(tmp_path / "run", finished.cohort / "east")


def test_data_without_outcome_are_refused_by_all_else(finished: FinishedRun, tmp_path: Path) -> None:
    folder = _without_outcome(finished, tmp_path, column=False)

    result = CliRunner().invoke(app, ["check", str(folder)])

    assert result.exit_code == 1
    assert "expected a column died, got none" in result.output


def test_wrong_cells_are_refused_although_no_outcome_is_needed(finished: FinishedRun, tmp_path: Path) -> None:
    folder = _without_outcome(finished, tmp_path, column=False)
    table = pd.read_csv(folder / "patients.csv")
    table.assign(age="old").to_csv(folder / "patients.csv", index=False)

    with pytest.raises(DataError):
        predict(finished.run, folder)


def test_data_of_another_study_are_refused(finished: FinishedRun, tmp_path: Path) -> None:
    folder = _without_outcome(finished, tmp_path, column=True)
    schema = tmp_path / "schema.toml"
    schema.write_text(schema.read_text(encoding="utf-8").replace("A small study", "Another"), encoding="utf-8")

    with pytest.raises(SettingsError, match="expected the study of"):
        predict(finished.run, folder)


def test_run_without_an_explanation_can_be_used(tmp_path: Path) -> None:
    finished = finish_run(tmp_path, explain="none")

    assert len(predict(finished.run, finished.cohort / "east")) == 60


def test_command_writes_a_table_for_its_owner_and_never_over_a_file(finished: FinishedRun, tmp_path: Path) -> None:
    folder, out = _without_outcome(finished, tmp_path, column=False), tmp_path / "risks.csv"
    command = ["predict", "--run", str(finished.run), "--data", str(folder), "--out", str(out)]

    first, again = CliRunner().invoke(app, command), CliRunner().invoke(app, command)

    assert first.exit_code == 0, first.output
    assert "60 patients, mean predicted risk" in first.output
    assert "is not known here: of such patients the risks are too good" in " ".join(first.output.split())
    assert out.stat().st_mode & 0o077 == 0
    written = pd.read_csv(out)
    known_ids = list(finished.site().patients.patient_ids)
    np.testing.assert_allclose(written["risk"], predict(finished.run, folder)["risk"], rtol=1e-12)
    assert again.exit_code == 1
    assert "expected a new file" in again.output
    assert written["patient_id"].tolist() == known_ids
