"""A run folder that does not fit is refused with a clear error, and nothing is written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from client.cli import app
from tests.client.finished_run import FinishedRun, finish_run

PATIENT = "east-004"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return finish_run(tmp_path_factory.mktemp("finished"), explain="modalities")


@pytest.fixture
def spoiled(finished: FinishedRun, tmp_path: Path) -> FinishedRun:
    """A copy of the run folder, to be spoiled."""
    shutil.copytree(finished.run, tmp_path / "run")
    return FinishedRun(tmp_path / "run", finished.cohort, finished.cache)


def _run(finished: FinishedRun, out: Path, *, patient: str = PATIENT) -> tuple[int, str]:
    arguments = ["explain", "--run", str(finished.run), "--data", str(finished.cohort / "east")]
    few = ["--image-references", "2", "--series-references", "3"]
    found = CliRunner().invoke(
        app, [*arguments, "--patient", patient, "--out", str(out), "--cache", str(finished.cache), *few]
    )
    return found.exit_code, " ".join(found.output.split())


def _edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _other_weights(run: Path) -> None:
    weights = load_file(run / "model.safetensors")
    save_file({**weights, "head.linear.bias": weights["head.linear.bias"] + 1}, run / "model.safetensors")


def _other_background(run: Path) -> None:
    rows = load_file(run / "background.safetensors")
    save_file({**rows, "embedding/static": rows["embedding/static"] + np.float32(1)}, run / "background.safetensors")


def _remove(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def _truncate(name: str) -> Callable[[Path], None]:
    def spoil(run: Path) -> None:
        (run / name).write_bytes((run / name).read_bytes()[:50])

    return spoil


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "no-model": (_remove("model.json"), "model.json: expected a file of a finished run"),
    "not-explained": (
        _remove("explanations.json"),
        "explanations.json: expected a file of a finished and explained run",
    ),
    "half-a-json": (_truncate("model.json"), "model.json: expected a file of a finished run"),
    "no-weights": (_remove("model.safetensors"), "model.safetensors: expected the run's weights"),
    "half-the-weights": (_truncate("model.safetensors"), "model.safetensors: expected the run's weights"),
    "other-weights": (_other_weights, "expected the weights that model.json describes, got others"),
    "no-background": (_remove("background.safetensors"), "expected the run's common background"),
    "other-background": (_other_background, "of explanations.json, got"),
    "background-of-another-run": (
        lambda run: _edit_json(run / "explanations.json", background_id="0" * 64),
        "expected the background 000000000000 of explanations.json",
    ),
    "other-study": (
        lambda run: _edit_json(run / "model.json", schema_sha256="0" * 64),
        "schema: expected the study of",
    ),
}


def test_explanation_is_written_and_told(finished: FinishedRun, tmp_path: Path) -> None:
    status, text = _run(finished, tmp_path / "patient.json")

    content = json.loads((tmp_path / "patient.json").read_text())
    assert status == 0
    assert f"risk of the outcome {content['prediction']['probability']:.1%}" in text
    assert "static: age" in text
    assert (tmp_path / "patient.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(("spoil", "message"), SPOILT.values(), ids=SPOILT.keys())
def test_run_that_does_not_fit_is_refused(
    spoiled: FinishedRun, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    spoil(spoiled.run)

    status, text = _run(spoiled, tmp_path / "patient.json")

    assert status == 1
    assert message in text
    assert not (tmp_path / "patient.json").exists()


def test_unknown_patient_leaves_no_file(finished: FinishedRun, tmp_path: Path) -> None:
    status, text = _run(finished, tmp_path / "patient.json", patient="nobody")

    assert (status, list(tmp_path.iterdir())) == (1, [])
    assert "expected one of its 60 patient ids" in text


@pytest.mark.parametrize(("out", "message"), [("patient.txt", ".html or .json"), ("no/such/p.json", "a folder that")])
def test_place_of_the_file_is_checked_first(finished: FinishedRun, tmp_path: Path, out: str, message: str) -> None:
    status, text = _run(finished, tmp_path / out)

    assert status == 1
    assert message in text


def test_hospital_whose_data_are_faulty_is_refused_with_its_problems(finished: FinishedRun, tmp_path: Path) -> None:
    shutil.copytree(finished.cohort, tmp_path / "cohort")
    table = tmp_path / "cohort" / "east" / "patients.csv"
    table.write_text(table.read_text().replace("east-004,0", "east-004,7", 1).replace("east-004,1", "east-004,7", 1))

    status, text = _run(FinishedRun(finished.run, tmp_path / "cohort", tmp_path / "cache"), tmp_path / "patient.json")

    assert status == 1
    assert "outcome" in text
    assert not (tmp_path / "patient.json").exists()
