"""Who ends what a launcher started, once the launcher cannot."""

import io
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from server.run_folder.folder import CONTINUE, RunFolder, read_status
from server.run_folder.lock import LAUNCHER_LOCK
from shared_model.process.folder_lock import hold_lock
from simulation.flower.guardian import main
from tests.waiting import wait_until

LAUNCHER = """
import subprocess, sys, time
from pathlib import Path
from simulation.flower.guardian import guarded
home, run = map(Path, sys.argv[1:])
with (home.parent / "log").open("ab") as log, guarded(
    home=home, run=run, log=log, lock=".launcher.lock", go_on="continue with --resume"
) as guard:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)
    guard(child.pid)
    print(child.pid, flush=True)
    time.sleep(3600)
"""


def _is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.write_status("running")
    (tmp_path / "home").mkdir()
    return folder


def test_killed_launcher_leaves_no_process_no_folder_and_no_run_that_seems_to_go_on(
    run: RunFolder, tmp_path: Path
) -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, tmp_path / "home", run.path], stdout=subprocess.PIPE, text=True
    )
    assert launcher.stdout is not None
    with launcher.stdout:
        child_pid = int(launcher.stdout.readline())
    assert _is_running(child_pid)

    launcher.kill()

    launcher.wait()
    wait_until(lambda: read_status(run.path)[0] != "running")
    assert read_status(run.path) == ("interrupted", "hipfed-sim was killed; continue with --resume")
    assert not _is_running(child_pid)
    assert not (tmp_path / "home").exists()


def test_run_that_had_completed_stays_completed(run: RunFolder, tmp_path: Path) -> None:
    run.write_status("completed")

    main(tmp_path / "home", run.path, io.StringIO(), lock=LAUNCHER_LOCK, go_on=CONTINUE)

    assert read_status(run.path) == ("completed", "")


def test_status_is_left_alone_when_the_next_launcher_is_at_work(run: RunFolder, tmp_path: Path) -> None:
    with hold_lock(run.path, LAUNCHER_LOCK):
        main(tmp_path / "home", run.path, io.StringIO(), lock=LAUNCHER_LOCK, go_on=CONTINUE)

    assert read_status(run.path)[0] == "running"


def test_process_that_ended_by_itself_is_no_fault(run: RunFolder, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()

    main(tmp_path / "home", run.path, io.StringIO(f"{process.pid}\n"), lock=LAUNCHER_LOCK, go_on=CONTINUE)

    assert read_status(run.path)[0] == "interrupted"
