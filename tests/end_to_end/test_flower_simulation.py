"""`hipfed-sim run` as a user starts it: a real SuperLink, virtual SuperNodes, and nothing left behind."""

import json
import os
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from shared_model.config import parse_settings
from tests.end_to_end.deployed import UNHURRIED
from tests.server.small_cohort import run_small_study, write_small_cohort
from tests.waiting import run_to_end

COMMAND = Path(sys.executable).parent / "hipfed-sim"
SETTINGS = {"rounds-unimodal": "0", "rounds-fusion": "2", "rounds-joint": "0", "device": "cpu", **UNHURRIED}
SECURELY = {"secure-sum": "true"}  # the study in one process adds plainly: of the same sums come the same bytes
MARK = "HIPFED_TEST_RUN"


@dataclass(frozen=True)
class Outcome:
    """How the command ended, and the processes that it left running."""

    status: int
    screen: str
    left_behind: list[str]


def _run(cohort: Path, out: Path) -> Outcome:
    options = [word for key, value in {**SETTINGS, **SECURELY}.items() for word in ("--set", f"{key}={value}")]
    mark = uuid.uuid4().hex  # every process of this run inherits it, wherever its parent has gone
    environment = {**os.environ, MARK: mark, "HIPFED_CACHE": str(out.parent / "cache"), "COLUMNS": "200"}
    words: list[str | Path] = [COMMAND, "run", "--cohort", cohort, "--out", out, *options]
    done = run_to_end(words, watched=out.parent, env=environment)
    return Outcome(done.returncode, done.stdout + done.stderr, _marked_processes(mark))


def _marked_processes(mark: str) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def _break(cohort: Path, name: str) -> None:
    """Give a hospital's first patient an outcome that does not exist."""
    table = cohort / name / "patients.csv"
    lines = table.read_text().splitlines()
    patient, _, *others = lines[1].split(",")
    lines[1] = ",".join([patient, "7", *others])
    table.write_text("\n".join(lines) + "\n")


@dataclass(frozen=True)
class Finished:
    """A run of four hospitals, of which one has broken data."""

    cohort: Path
    run: Path
    outcome: Outcome


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("flower")
    cohort = write_small_cohort(folder / "cohort", hospitals=4)
    _break(cohort, "north")
    return Finished(cohort, folder / "run", _run(cohort, folder / "run"))


def test_run_over_flower_gives_the_bytes_of_the_run_in_one_process(finished: Finished, tmp_path: Path) -> None:
    outcome, run = finished.outcome, finished.run

    assert outcome.status == 0, outcome.screen
    assert json.loads((run / "status.json").read_text())["state"] == "completed"
    here = run_small_study(finished.cohort, tmp_path / "here", settings=parse_settings(SETTINGS))
    for name in ("model.safetensors", "metrics.json"):
        assert (run / name).read_bytes() == (here.path / name).read_bytes()
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    assert [line["answered"] for line in lines] == [["east", "south", "west"]] * 3
    assert "run folder: " in outcome.screen
    assert outcome.left_behind == []


def test_run_goes_on_without_a_hospital_whose_data_are_broken_and_says_why(finished: Finished) -> None:
    config = json.loads((finished.run / "config.json").read_text())

    assert config["excluded"] == {"north": "data check failed: outcome-not-0-1 (1)"}
    assert [site["site"] for site in config["roster"]] == ["east", "south", "west"]
    assert "excluded: north: data check failed: outcome-not-0-1 (1)" in finished.outcome.screen


def test_run_fails_on_the_screen_and_in_the_run_folder_when_no_hospital_has_usable_data(tmp_path: Path) -> None:
    cohort = write_small_cohort(tmp_path / "cohort")
    for name in ("east", "north", "south"):
        _break(cohort, name)

    outcome = _run(cohort, tmp_path / "run")

    assert outcome.status == 1
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "failed"
    for said in (outcome.screen, status["reason"]):
        assert "handshake: expected answers of at least 3 hospitals (min-sites), got 0 of 3" in said
        for name in ("east", "north", "south"):
            assert f"{name}: data check failed: outcome-not-0-1 (1)" in said
        assert "Traceback" not in said
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert outcome.left_behind == []
