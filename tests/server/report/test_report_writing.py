import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import server.report.page
from server.cli import app
from server.report import writing
from server.report.writing import REPORT, installed_environment, reported, write_apart, write_at_end, write_report
from shared_model.errors import LockedError, SchemaError, SettingsError, StudyError
from tests.server.report.run_folders import write, write_run

SENTINEL = "as it was"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


def _age(path: Path, seconds: float) -> None:
    """Make a file so much older."""
    before = path.stat().st_mtime - seconds
    os.utime(path, (before, before))


def test_command_writes_the_report_and_says_where(run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(run), "--out", str(tmp_path / "r.html")])

    assert (result.exit_code, result.output) == (0, f"report: {tmp_path / 'r.html'}\n")
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")


def test_command_on_what_is_no_run_says_so_and_exits_with_1(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(tmp_path)])

    assert result.exit_code == 1
    assert "expected a run folder with status.json" in result.output
    assert "Traceback" not in result.output


def test_another_process_writes_the_report_and_its_place_is_told(run: Path) -> None:
    said: list[str] = []

    write_apart(run, said.append)

    assert said == [f"report: {run / REPORT}"]
    assert (run / REPORT).stat().st_size > 100_000


def test_report_that_another_process_cannot_write_is_told_with_its_reason(run: Path) -> None:
    (run / "metrics.json").write_text("{")
    said: list[str] = []

    write_apart(run, said.append)

    (line,) = said
    assert line.startswith("the report was not written: hipfed-server: ")
    assert "metrics.json: expected JSON of a run" in line.replace("\n", " ")
    assert line.endswith(f"`hipfed-server report {run}` writes it")


def test_bundle_without_templates_is_taken_off_the_path_of_the_other_process(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    inherited = {"PYTHONPATH": f"{bundle}{os.pathsep}/elsewhere", "HOME": "/home"}

    assert installed_environment(bundle, inherited) == {"PYTHONPATH": "/elsewhere", "HOME": "/home"}


def test_checkout_stays_on_the_path_of_the_other_process(tmp_path: Path) -> None:
    (tmp_path / "server" / "report" / "templates").mkdir(parents=True)
    inherited = {"PYTHONPATH": str(tmp_path)}

    assert installed_environment(tmp_path, inherited) == inherited


def test_program_that_is_not_there_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    said: list[str] = []

    write_apart(run, said.append)

    assert said[0].startswith("the report was not written: FileNotFoundError")


def test_report_that_takes_too_long_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "TIMEOUT_S", 0.01)
    said: list[str] = []

    write_apart(run, said.append)

    assert said[0].startswith("the report was not written: TimeoutExpired")


def test_report_that_the_app_did_not_write_is_written_at_the_end(run: Path) -> None:
    said: list[str] = []

    write_at_end(run, said.append)

    assert said == [f"report: {run / REPORT}"]
    assert (run / REPORT).exists()


def test_report_that_is_newer_than_the_status_is_left(run: Path) -> None:
    _age(run / "status.json", 5)
    (run / REPORT).write_text(SENTINEL)

    write_at_end(run, lambda _: None)

    assert (run / REPORT).read_text() == SENTINEL


def test_report_that_is_older_than_the_status_is_written_anew(run: Path) -> None:
    (run / REPORT).write_text(SENTINEL)
    _age(run / REPORT, 5)

    write_at_end(run, lambda _: None)

    assert (run / REPORT).read_text() != SENTINEL


@pytest.mark.parametrize("error", [StudyError("a file is broken"), ZeroDivisionError("nobody thought of this")])
def test_report_that_fails_is_told_and_raises_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: Path) -> str:
        raise error

    monkeypatch.setattr(server.report.page, "render_report", fail)
    said: list[str] = []

    write_at_end(run, said.append)

    assert said[0].startswith("the report was not written: ")
    assert str(error) in said[0]
    assert not (run / REPORT).exists()


def test_folder_without_a_run_gets_no_report(tmp_path: Path) -> None:
    said: list[str] = []

    write_at_end(tmp_path, said.append)

    assert (said, list(tmp_path.iterdir())) == ([], [])


def test_run_that_fails_is_reported_and_its_error_goes_on(run: Path) -> None:
    write(run, "status.json", {"state": "failed", "reason": "no quorum"})
    said: list[str] = []

    with pytest.raises(StudyError, match="no quorum"), reported(run, said.append):
        raise StudyError("no quorum")

    assert said == [f"report: {run / REPORT}"]
    assert "no quorum" in (run / REPORT).read_text()


@pytest.mark.parametrize("error", [SettingsError("x"), SchemaError("x"), LockedError("x"), KeyboardInterrupt()])
def test_run_that_is_refused_or_stopped_leaves_the_folder_alone(run: Path, error: BaseException) -> None:
    said: list[str] = []

    with pytest.raises(type(error)), reported(run, said.append):
        raise error

    assert said == []
    assert not (run / REPORT).exists()


def test_writing_a_report_changes_nothing_else_in_the_run_folder(run: Path) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}

    write_report(run)

    after = {path.name: path.read_bytes() for path in run.iterdir() if path.name != REPORT}
    assert after == before
