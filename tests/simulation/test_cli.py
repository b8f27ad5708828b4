import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

import client.cli
import server.cli
import server.run_folder.summary
import simulation.cli
import simulation.run
from server.run_folder.folder import RunFolder
from server.stopping import Stopped
from shared_model.version import own_version


@pytest.mark.parametrize("app", [simulation.cli.app, server.cli.app, client.cli.app])
def test_every_command_tells_its_version(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["--version"])

    assert (result.exit_code, result.output) == (0, f"hipfed {own_version()}\n")


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `hipfed-sim run` that ends so, with this state of the run folder."""

    def run(ending: BaseException, state: str) -> Result:
        RunFolder(tmp_path / "run").write_status(state)  # type: ignore[arg-type]

        def end(*_: object, **__: object) -> None:
            raise ending

        monkeypatch.setattr(simulation.run, "run_cohort", end)
        words = ["run", "--cohort", str(tmp_path), "--out", str(tmp_path / "run")]
        return CliRunner().invoke(simulation.cli.app, words)

    return run


@pytest.mark.parametrize(("ending", "status"), [(KeyboardInterrupt(), 130), (Stopped(143), 143), (Stopped(129), 129)])
def test_interrupted_run_says_how_to_continue(
    stopped: Callable[..., Result], ending: BaseException, status: int
) -> None:
    result = stopped(ending, "interrupted")

    assert (result.exit_code, result.output) == (status, "interrupted; continue with --resume\n")


def test_run_that_something_else_ends_is_not_called_interrupted(stopped: Callable[..., Result]) -> None:
    result = stopped(SystemExit("expected a licence, got none"), "failed")

    assert result.exit_code == 1
    assert "expected a licence" in result.output
    assert "interrupted" not in result.output


def test_run_that_finished_during_the_interrupt_is_shown_as_finished(stopped: Callable[..., Result]) -> None:
    result = stopped(KeyboardInterrupt(), "completed")

    assert result.exit_code == 0
    assert result.output.startswith("the run had finished\ncompleted\nrun folder: ")


def test_rounds_says_which_phases_it_sets_and_leaves_those_that_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, str]] = []
    monkeypatch.setattr(simulation.run, "run_cohort", lambda *_, assignments, **__: given.append(assignments))
    monkeypatch.setattr(server.run_folder.summary, "print_run", lambda *_: None)
    words = ["run", "--cohort", "c", "--out", str(tmp_path / "run"), "--rounds", "7", "--set", "rounds-unimodal=2"]

    result = CliRunner().invoke(simulation.cli.app, words)

    assert given == [{"rounds-fusion": "7", "rounds-unimodal": "2"}]
    assert "--rounds 7: rounds-unimodal=2, rounds-fusion=7, rounds-joint=0" in result.output


@pytest.mark.parametrize("package", ["matplotlib", "sklearn"])
def test_command_says_which_package_of_an_extra_it_lacks(package: str, tmp_path: Path) -> None:
    command = ["compare", "--cohort", ".", "--out", "out"]
    hidden = f"import sys; sys.modules[{package!r}] = None\nfrom simulation.cli import app\napp({command!r})"

    done = subprocess.run([sys.executable, "-c", hidden], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert f"hipfed-sim: expected the package {package}" in done.stderr
    assert 'pip install "hipfed[research]"' in done.stderr
    assert "Traceback" not in done.stderr
