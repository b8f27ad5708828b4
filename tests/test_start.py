"""What commands load before they do anything: a start without torch takes a fraction of a second."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.small_cohort import write_small_cohort

SLOW = ("torch", "torchvision", "flwr", "ray", "matplotlib", "sklearn", "plotly", "scipy", "shap", "captum", "pydicom")
TABLES = ("pandas", "pyarrow", "PIL")


def _loaded(module: str, words: list[str], *, status: int = 0) -> set[str]:
    """Top-level modules that a command has loaded at its end."""
    code = (
        f"import sys; from {module} import app\n"
        f"try: app({words!r})\n"
        f"except SystemExit as end: assert end.code in ({status}, None), end.code\n"
        "print('loaded', *{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("module", ["simulation.cli", "server.cli", "client.cli"])
@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_loads_nothing_slow(module: str, words: list[str]) -> None:
    assert not _loaded(module, words) & {*SLOW, *TABLES}


@pytest.mark.parametrize("words", [["run", "--help"], ["compare", "--help"], ["bench", "pooled", "--help"]])
def test_help_of_a_researchers_command_loads_nothing_slow(words: list[str]) -> None:
    assert not _loaded("simulation.cli", words) & {*SLOW, *TABLES}


def test_check_of_tables_loads_nothing_slow(tmp_path: Path) -> None:
    cohort = write_small_cohort(tmp_path / "cohort")

    assert not _loaded("client.cli", ["check", str(cohort), "--cache", str(tmp_path / "cache")]) & set(SLOW)


def test_launcher_of_a_simulated_run_loads_no_torch() -> None:
    loaded = "{name.split('.')[0] for name in sys.modules}"
    code = f"import sys, simulation.run, server.run_folder.summary; print('loaded', *{loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not set(done.stdout.split()) & set(SLOW)
