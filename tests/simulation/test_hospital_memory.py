"""What a hospital's processes hold: couriers share with the launcher that they are copies of."""

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from shared_model.errors import StudyError
from shared_model.process import supervision
from shared_model.process.supervision import PartStatus, Status
from simulation.bench import hospital_memory
from simulation.bench.hospital_memory import list_processes, read_memory, watched_memory
from tests.waiting import PATIENCE_S

# A SuperNode of 100 MB, its launcher and a courier, copies of it; the courier writes 30 MB of its own.
SUPERNODE = """
import ctypes, os, sys, time
def rename(name):
    ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
held = bytearray(os.urandom(1_000_000)) * 100
if os.fork() == 0:
    rename(b"hipfed-launch")
    if len(sys.argv) > 1 and os.fork() == 0:
        rename(b"hipfed-courier")
        own = bytearray(os.urandom(1_000_000)) * 30
        print("ready", flush=True)
elif len(sys.argv) == 1:
    time.sleep(1)
    print("ready", flush=True)
time.sleep(3600)
"""


@pytest.fixture
def supernode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hospital whose only part is this SuperNode."""
    with subprocess.Popen([sys.executable, "-c", SUPERNODE, *request.param], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        now = datetime.now(UTC)
        part = PartStatus("supernode", "ready", now, process.pid, 0, "")
        waiting = PartStatus("worker", "waiting", now, None, 0, "")
        status = Status(pid=1, token="", started=now, updated=now, ready=True, line="", parts=(waiting, part))
        monkeypatch.setattr(supervision, "read_status", lambda _: status)
        yield
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()


@pytest.mark.parametrize("supernode", [["courier"]], indirect=True)
@pytest.mark.usefixtures("supernode")
def test_courier_is_counted_with_what_it_does_not_share_and_the_hospital_with_each_page_once(tmp_path: Path) -> None:
    processes = list_processes(tmp_path)
    held = read_memory(processes)

    assert sorted(name for name, _ in processes) == ["courier", "launcher", "supernode"]
    assert 30 <= held["courier"] < 60
    assert held["launcher"] < 30
    assert 130 <= held["hospital"] < 200  # resident memory of the three would be 330 and more


@pytest.mark.parametrize("supernode", [["courier"]], indirect=True)
@pytest.mark.usefixtures("supernode")
def test_peaks_are_there_when_the_block_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hospital_memory, "EVERY_S", 0.01)
    looked = threading.Event()
    keep = hospital_memory.keep_peaks

    def note(peaks: dict[str, float], seen: Mapping[str, float]) -> None:
        keep(peaks, seen)
        looked.set()

    monkeypatch.setattr(hospital_memory, "keep_peaks", note)
    with watched_memory([tmp_path]) as held:
        assert looked.wait(PATIENCE_S)

    assert sorted(held) == ["courier", "hospital", "launcher", "supernode"]
    assert held["hospital"] >= 130


@pytest.mark.parametrize("supernode", [[]], indirect=True)
@pytest.mark.usefixtures("supernode")
def test_study_in_which_no_courier_was_seen_gives_no_figure(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="expected a courier at work, got none"), watched_memory([tmp_path]):
        pass


def test_peak_is_the_most_that_was_seen() -> None:
    peaks = {"courier": 30.0}
    hospital_memory.keep_peaks(peaks, {"courier": 20.0, "worker": 5.0})
    hospital_memory.keep_peaks(peaks, {"courier": 40.0, "worker": 4.0})

    assert peaks == {"courier": 40.0, "worker": 5.0}
