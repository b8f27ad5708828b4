"""What the coordinator's commands say, and their exit status."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.cli import app
from server.deployment.home import CoordinatorHome
from server.run_folder import RunFolder
from shared_model import supervised
from tests.server.coordinator_home import make_home
from tests.server.small_cohort import STATIC_SCHEMA


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorHome:
    return make_home(tmp_path / "home")


def _invoke(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "300"})
    return done.exit_code, done.output


def test_status_of_a_coordinator_that_does_not_run_fails(home: CoordinatorHome) -> None:
    code, screen = _invoke("status", "--home", home.path)

    assert code == 1
    assert screen.startswith("not running\nsuperlink: down\ngateway: down\nno hospital is enrolled\n")


def test_stop_of_a_coordinator_that_does_not_run_is_done(home: CoordinatorHome) -> None:
    assert _invoke("stop", "--home", home.path) == (0, "not running\n")


@pytest.mark.parametrize(("is_ready", "code"), [(True, 0), (False, 1)])
def test_detached_start_succeeds_only_when_both_are_up(
    *, home: CoordinatorHome, monkeypatch: pytest.MonkeyPatch, is_ready: bool, code: int
) -> None:
    monkeypatch.setattr(supervised, "start", lambda *_, **__: is_ready)

    assert _invoke("start", "--home", home.path, "--detach")[0] == code


@pytest.mark.parametrize("command", ["start", "status", "stop"])
def test_folder_that_is_no_coordinators_is_refused_without_a_traceback(tmp_path: Path, command: str) -> None:
    code, screen = _invoke(command, "--home", tmp_path / "none")

    assert code == 1
    assert "expected a coordinator's folder, got none" in screen
    assert "Traceback" not in screen


@pytest.mark.parametrize(
    ("stopped", "state", "code", "words"),
    [
        (KeyboardInterrupt(), "failed", 130, "interrupted; continue with --resume"),
        (SystemExit(143), "failed", 143, "interrupted; continue with --resume"),
        (KeyboardInterrupt(), "completed", 0, "the run had finished"),
    ],
)
def test_run_that_was_stopped_says_how_it_stands(
    home: CoordinatorHome,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped: BaseException,
    state: str,
    code: int,
    words: str,
) -> None:
    (tmp_path / "schema.toml").write_text(STATIC_SCHEMA)

    def run(*_: object, **__: object) -> None:
        RunFolder(tmp_path / "run").write_status(state)  # type: ignore[arg-type]
        raise stopped

    monkeypatch.setattr("server.deployment.run.run_deployed", run)

    got, screen = _invoke(
        "run", "--home", home.path, "--schema", tmp_path / "schema.toml", "--out", tmp_path / "run", "--min-sites", "2"
    )

    assert got == code
    assert words in screen


def test_run_takes_min_sites_for_a_setting(
    home: CoordinatorHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "schema.toml").write_text(STATIC_SCHEMA)
    given: list[object] = []
    monkeypatch.setattr(
        "server.deployment.run.run_deployed", lambda *_, **options: given.append(options["assignments"])
    )

    _invoke(
        *("run", "--home", home.path, "--schema", tmp_path / "schema.toml", "--out", tmp_path / "run"),
        *("--min-sites", "2", "--set", "fold=1", "--set", "min-sites=5"),
    )

    assert given == [{"fold": "1", "min-sites": "2"}]
