"""report.html written: by its command, by the app at the end of a run, and by who started the run."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from server.run_folder.folder import read_status
from shared_model.errors import HipfedError, LockedError, SettingsError, StudyError
from shared_model.process.files import replace_file

REPORT = "report.html"
TIMEOUT_S = 120.0
_HINT = "`hipfed-server report {path}` writes it"


def write_report(path: Path, out: Path | None = None) -> Path:
    """Write the report of a run folder.

    Args:
        path: the run folder.
        out: where to; None for report.html in the run folder.

    Returns:
        The file.

    Raises:
        StudyError: not a run folder, or a file in it cannot be read.
        SettingsError: the file cannot be written.
    """
    from server.report.page import render_report  # noqa: PLC0415 - a run that only asks for it starts without jinja2

    file = path / REPORT if out is None else out
    if file.is_dir():
        raise SettingsError(f"--out at {file}: expected a file, got a folder. Name a file.")
    replace_file(file, render_report(path).encode())
    return file


def write_apart(path: Path, say: Callable[[str], None]) -> None:
    """Let the installed hipfed write the report, in a process of its own: whatever happens to it, the run has ended.

    Why not here: Flower's bundle, from which the app runs, cannot carry templates.

    Args:
        path: the run folder.
        say: told where the report is, or why there is none.
    """
    command = [str(Path(sys.executable).parent / "hipfed-server"), "report", str(path)]
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            command, env=installed_environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        say(f"the report was not written: {type(error).__name__}: {error}; {_HINT.format(path=path)}")
        return
    if done.returncode:
        told = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
        say(f"the report was not written: {told[-1]}; {_HINT.format(path=path)}")
    else:
        say(f"report: {path / REPORT}")


def installed_environment(
    root: Path = Path(__file__).parents[2], inherited: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The environment in which Python finds the installed hipfed: Flower puts its bundle on the path of all it starts.

    Args:
        root: where this code lies: the bundle, which has no templates, or hipfed itself.
        inherited: of this process.
    """
    environment = dict(inherited)
    if "PYTHONPATH" in environment and not (root / "server" / "report" / "templates").is_dir():
        places = environment["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(place for place in places if place and Path(place) != root)
    return environment


def write_at_end(path: Path, say: Callable[[str], None]) -> None:
    """For who started the run: write the report unless the app has, and say where it is or why there is none.

    Args:
        path: the run folder; where the run did not begin there is nothing to report.
        say: shows the user a line.
    """
    if read_status(path)[0] == "missing":
        return
    try:
        if not _is_current(path):
            write_report(path)
    except Exception as error:  # noqa: BLE001 - whatever it is, the run ended as its status says
        text = str(error) if isinstance(error, HipfedError) else f"{type(error).__name__}: {error}"
        say(f"the report was not written: {text}; {_HINT.format(path=path)}")
        return
    say(f"report: {path / REPORT}")


@contextmanager
def reported(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """A run whose report is written when it completes or fails, and not if it was refused or stopped.

    Args:
        path: the run folder.
        say: shows the user a line.
    """
    try:
        yield
    except LockedError:
        raise  # the folder is another run's
    except StudyError:
        write_at_end(path, say)
        raise
    write_at_end(path, say)


def _is_current(path: Path) -> bool:
    """True if the report was written after the run had ended."""
    report, status = path / REPORT, path / "status.json"
    return report.exists() and report.stat().st_mtime_ns >= status.stat().st_mtime_ns
