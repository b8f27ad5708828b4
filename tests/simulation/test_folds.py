"""Which folds a run is of, and what their folder says when they are broken off. Whole folds: test_run.py."""

import signal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import simulation.run
from server.run_folder.folder import read_status
from shared_model.errors import SettingsError, StudyError
from simulation.run import parse_folds, run_cohort
from tests.server.small_cohort import write_small_cohort


@pytest.mark.parametrize(("text", "folds"), [("0", [0]), ("3", [3]), ("0..4", [0, 1, 2, 3, 4]), ("2..2", [2])])
def test_folds_are_a_number_or_a_range_with_both_ends(text: str, folds: list[int]) -> None:
    assert parse_folds(text) == folds


@pytest.mark.parametrize("text", ["", "a", "0..", "..4", "4..0", "0...4", "1.5", "0,1"])
def test_folds_that_are_neither_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"fold: expected a number or a range such as 0\.\.4"):
        parse_folds(text)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_range_of_folds_that_a_signal_ends_says_that_it_was_interrupted(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(**arguments: Any) -> None:
        if arguments["folder"].path.name == "fold-1":
            signal.raise_signal(number)

    monkeypatch.setattr(simulation.run, "run_on_flower", run)
    cohort, out = write_small_cohort(tmp_path / "cohort"), tmp_path / "out"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run_cohort(cohort, out, assignments={"fold": "0..2"}, resume=False, console=Console(file=StringIO()))

    assert read_status(out) == ("interrupted", "continue with --resume")
    assert not (out / "fold-2").exists() or not (out / "fold-2" / "status.json").exists()


def test_range_of_folds_one_of_which_fails_says_why_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(**_: Any) -> None:
        raise StudyError("no quorum")

    monkeypatch.setattr(simulation.run, "run_on_flower", run)
    cohort, out = write_small_cohort(tmp_path / "cohort"), tmp_path / "out"
    for resume in (False, True):
        with pytest.raises(StudyError, match="no quorum"):
            run_cohort(cohort, out, assignments={"fold": "0..2"}, resume=resume, console=Console(file=StringIO()))

        assert read_status(out) == ("failed", "no quorum")
