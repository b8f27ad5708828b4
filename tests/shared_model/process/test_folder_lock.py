import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared_model.errors import LockedError
from shared_model.process.folder_lock import hold_lock, lock_holder

LOCK, OTHER = ".one.lock", ".other.lock"

HOLDER = """
import sys, time
from pathlib import Path
from shared_model.process.folder_lock import hold_lock
with hold_lock(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(3600)
"""


def test_second_holder_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    message = rf"run: in use by process {os.getpid()}\. Wait for its end"
    with hold_lock(tmp_path / "run", LOCK):
        with pytest.raises(LockedError, match=message), hold_lock(tmp_path / "run", LOCK):
            pass
        with pytest.raises(LockedError, match=message), hold_lock(tmp_path / "run", LOCK):
            pass  # a refusal takes no lock away


def test_lock_is_free_after_its_holder(tmp_path: Path) -> None:
    with hold_lock(tmp_path, LOCK):
        pass
    with hold_lock(tmp_path, LOCK):
        assert (tmp_path / LOCK).read_text() == str(os.getpid())


def test_locks_of_two_names_do_not_lock_each_other_out(tmp_path: Path) -> None:
    with hold_lock(tmp_path, OTHER), hold_lock(tmp_path, LOCK):
        holders = [(tmp_path / name).read_text() for name in (OTHER, LOCK)]

    assert holders == [str(os.getpid())] * 2


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path, LOCK], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    with holder.stdout:
        holder.stdout.readline()
    with pytest.raises(LockedError, match=f"in use by process {holder.pid}"), hold_lock(tmp_path, LOCK):
        pass

    holder.kill()
    holder.wait()

    with hold_lock(tmp_path, LOCK):
        pass


def test_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(LockedError, match="expected a file that can be locked, got: Operation not supported"):
        hold_lock(tmp_path, LOCK).__enter__()


def test_holder_is_named_while_it_holds_the_lock(tmp_path: Path) -> None:
    assert lock_holder(tmp_path, LOCK) is None
    with hold_lock(tmp_path, LOCK):
        assert lock_holder(tmp_path, LOCK) == os.getpid()

    assert lock_holder(tmp_path, LOCK) is None  # though its file is still there


def test_lock_that_cannot_be_written_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()  # root may write everywhere, but not a folder

    with pytest.raises(LockedError, match=rf"{LOCK}: expected a file that this user may write, got: Is a directory\."):
        hold_lock(tmp_path, LOCK).__enter__()
