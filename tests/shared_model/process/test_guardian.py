"""Trees of processes and their end."""

import subprocess
import sys

import psutil
import pytest

import shared_model.process.guardian
from shared_model.process.guardian import end_tree
from tests.waiting import PATIENCE_S


def test_ending_ends_every_process_below(monkeypatch: pytest.MonkeyPatch) -> None:
    # the child ignores SIGTERM, as a hung worker would
    child = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(3600)"
    )
    parent = (
        "import subprocess, sys, time; "
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE); "
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(3600)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        child_pid = int(process.stdout.readline())
    monkeypatch.setattr(shared_model.process.guardian, "STOP_TIMEOUT_S", 0.5)

    end_tree(psutil.Process(process.pid))

    process.wait(PATIENCE_S)
    assert not psutil.pid_exists(child_pid) or psutil.Process(child_pid).status() == psutil.STATUS_ZOMBIE
