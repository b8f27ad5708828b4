from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.run_lock import APP_LOCK, LAUNCHER_LOCK, hold_lock
from shared_model.errors import LockedError

HOLDER = """
import sys, time
from pathlib import Path
from server.run_lock import hold_lock
with hold_lock(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_second_holder_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    message = rf"run: in use by process {os.getpid()}\. Wait for its end"
    with hold_lock(tmp_path / "run", APP_LOCK):
        with pytest.raises(LockedError, match=message), hold_lock(tmp_path / "run", APP_LOCK):
            pass
        with pytest.raises(LockedError, match=message), hold_lock(tmp_path / "run", APP_LOCK):
            pass  # a refusal takes no lock away


def test_lock_is_free_after_its_holder(tmp_path: Path) -> None:
    with hold_lock(tmp_path, APP_LOCK):
        pass
    with hold_lock(tmp_path, APP_LOCK):
        assert (tmp_path / APP_LOCK).read_text() == str(os.getpid())


def test_launcher_and_its_app_do_not_lock_each_other_out(tmp_path: Path) -> None:
    with hold_lock(tmp_path, LAUNCHER_LOCK), hold_lock(tmp_path, APP_LOCK):
        holders = [(tmp_path / name).read_text() for name in (LAUNCHER_LOCK, APP_LOCK)]

    assert holders == [str(os.getpid())] * 2


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path, APP_LOCK], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    with holder.stdout:
        holder.stdout.readline()
    with pytest.raises(LockedError, match=f"in use by process {holder.pid}"), hold_lock(tmp_path, APP_LOCK):
        pass

    holder.kill()
    holder.wait()

    with hold_lock(tmp_path, APP_LOCK):
        pass


def test_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(LockedError, match="expected a file that can be locked, got: Operation not supported"):
        hold_lock(tmp_path, APP_LOCK).__enter__()
