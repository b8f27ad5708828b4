"""Supervisors in processes of their own: started, asked, stopped, killed."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from shared_model.errors import LockedError, SettingsError
from shared_model.process import supervision
from shared_model.process.guardian import MARK, end_marked, marked_processes
from shared_model.process.supervision import STATUS, describe_age, read_status, refuse_second, start, stop
from tests.waiting import PATIENCE_S, wait_until

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

# Two parts, the second with a child that leaves its session and its parent, as Flower's processes do.
SITE = """
import os, subprocess, sys
from datetime import timedelta
from pathlib import Path
import shared_model.process.guardian
from shared_model.process.supervised_process import Part
from shared_model.process.supervisor import Supervisor
folder = Path(sys.argv[1])

class Ready(Part):
    def __init__(self, name, script):
        super().__init__(name, folder=folder, environment=os.environ)
        self.script, self.up = script, False
    def command(self):
        return [sys.executable, "-c", self.script]
    def forget(self):
        super().forget(); self.up = False
    def observe(self, line):
        super().observe(line); self.up = self.up or line == "up"
    def is_ready(self):
        return self.up

SLEEP = "import time; print('up', flush=True); time.sleep(3600)"
CHILD = (
    "import subprocess, sys; "
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)'], start_new_session=True); "
)
shared_model.process.guardian.STOP_TIMEOUT_S = 1.0
parts = [Ready("one", SLEEP), Ready("two", CHILD + SLEEP)]
Supervisor(parts, folder=folder / "processes", describe=lambda: "working", say=print).run()
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A supervisor of two parts in a process of its own; yields its folder of processes."""
    process = subprocess.Popen([sys.executable, "-c", SITE, tmp_path], env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    folder = tmp_path / "processes"

    def is_ready() -> bool:
        status = read_status(folder)
        return status is not None and status.ready

    try:
        wait_until(is_ready)
        yield folder
    finally:
        stop(folder)
        process.wait(PATIENCE_S)


def _running(folder: Path) -> supervision.Status:
    status = read_status(folder)
    assert status is not None
    return status


def test_stop_ends_every_process(site: Path) -> None:
    status = _running(site)
    assert len(marked_processes(status.token)) == 3

    assert stop(site)

    assert marked_processes(status.token) == []
    assert not psutil.pid_exists(status.pid) or psutil.Process(status.pid).status() == psutil.STATUS_ZOMBIE
    assert read_status(site) is None
    assert json.loads((site / STATUS).read_text())["line"] == "stopped"
    assert not stop(site)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_every_process(site: Path, number: signal.Signals) -> None:
    status = _running(site)

    os.kill(status.pid, number)

    wait_until(lambda: read_status(site) is None)
    assert marked_processes(status.token) == []


def test_killed_supervisor_leaves_no_process(site: Path) -> None:
    status = _running(site)

    os.kill(status.pid, signal.SIGKILL)

    wait_until(lambda: marked_processes(status.token) == [])
    assert not stop(site)


def test_processes_of_a_killed_part_are_ended_before_it_starts_again(site: Path) -> None:
    status = _running(site)
    part = status.parts[1]
    left = {process.pid for process in marked_processes(f"{status.token}/two")}
    assert part.pid in left
    assert len(left) == 2

    os.kill(part.pid, signal.SIGKILL)

    wait_until(lambda: (now := read_status(site)) is not None and now.ready and now.parts[1].restarts == 1)
    assert {process.pid for process in marked_processes(f"{status.token}/two")}.isdisjoint(left)


HIDING = (
    "import os, subprocess, sys\n"
    "command = [sys.executable, '-c', 'import time; time.sleep(3600)']\n"
    "hidden = subprocess.Popen(command, env={}, start_new_session=True)\n"
    "print('hidden', hidden.pid, flush=True)\n"
)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands orphans to a chosen process")
def test_process_that_left_its_parent_its_session_and_its_mark_is_ended_with_its_part(tmp_path: Path) -> None:
    site = SITE.replace(
        "CHILD + SLEEP",
        f"'import subprocess, sys; subprocess.run([sys.executable, \"-c\", ' + repr({HIDING!r}) + ']); ' + SLEEP",
    )
    command = [sys.executable, "-c", site, str(tmp_path)]
    try:
        assert start(command, folder=tmp_path / "processes", name="hipfed-client", detach_s=20.0, say=print)
        (line,) = [line for line in (tmp_path / "processes" / "two.log").read_text().splitlines() if "hidden" in line]
        hidden = psutil.Process(int(line.split()[-1]))
        assert MARK not in hidden.environ()
    finally:
        assert stop(tmp_path / "processes")

    assert not hidden.is_running()


def test_supervisor_that_has_not_written_for_long_is_not_ready(site: Path) -> None:
    status = site / STATUS
    content = json.loads(status.read_text())
    old = (datetime.now(UTC) - timedelta(minutes=3)).isoformat()
    os.kill(content["pid"], signal.SIGSTOP)
    try:
        status.write_text(json.dumps({**content, "updated": old}))
        read = read_status(site)
    finally:
        os.kill(content["pid"], signal.SIGCONT)

    assert read is not None
    assert not read.ready
    assert read.line.startswith(f"no word from process {content['pid']} for 3 min: it hangs, or its disk is full; ")


def test_second_supervisor_is_refused(site: Path, tmp_path: Path) -> None:
    with pytest.raises(LockedError, match=f"got process {_running(site).pid}"):
        refuse_second(site, "hipfed-server")
    second = subprocess.run(
        [sys.executable, "-c", SITE, tmp_path], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )

    assert second.returncode == 1
    assert "in use by process" in second.stderr


def test_detached_supervisor_that_ends_at_once_tells_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no certificate')"]

    with pytest.raises(
        SettingsError, match=r"^expected `hipfed-server start` to keep running, got its end\. It said: no certificate"
    ):
        start(command, folder=tmp_path / "processes", name="hipfed-server", detach_s=20.0, say=print)


def test_detached_supervisor_outlives_its_starter_and_says_how_it_is(tmp_path: Path) -> None:
    said: list[str] = []
    command = [sys.executable, "-c", SITE, str(tmp_path)]
    try:
        assert start(command, folder=tmp_path / "processes", name="hipfed-server", detach_s=20.0, say=said.append)

        status = _running(tmp_path / "processes")
        assert status.ready
        assert said == [f"running in the background (process {status.pid})", "working"]
    finally:
        assert stop(tmp_path / "processes")


def test_detached_supervisor_whose_parts_are_not_ready_says_what_it_waits_for(tmp_path: Path) -> None:
    said: list[str] = []
    command = [sys.executable, "-c", SITE.replace('line == "up"', "False"), str(tmp_path)]
    try:
        assert not start(command, folder=tmp_path / "processes", name="hipfed-server", detach_s=3.0, say=said.append)

        assert _running(tmp_path / "processes").parts[1].state == "waiting"
    finally:
        assert stop(tmp_path / "processes")


def test_detached_supervisor_is_waited_for_no_longer_than_it_needs(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SITE.replace('line == "up"', "False"), str(tmp_path)]
    begun = time.monotonic()
    try:
        assert start(
            command,
            folder=tmp_path / "processes",
            name="hipfed-client",
            detach_s=PATIENCE_S,
            say=print,
            has_begun=lambda status: status.parts[0].pid is not None,
        )

        assert time.monotonic() - begun < PATIENCE_S
    finally:
        assert stop(tmp_path / "processes")


def test_mark_reaches_processes_of_one_part_only() -> None:
    token = uuid.uuid4().hex  # every process of the machine is looked at
    command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(3600)"]
    processes = [
        subprocess.Popen(command, env={**os.environ, MARK: mark}, stdout=subprocess.PIPE)
        for mark in (f"{token}/one", f"{token}/one-more", f"{token}2/one")
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        assert [found.pid for found in marked_processes(f"{token}/one")] == [processes[0].pid]

        assert end_marked(token) == 0

        assert [process.poll() is None for process in processes] == [False, False, True]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_age_is_told_in_its_largest_unit() -> None:
    ages = [describe_age(timedelta(seconds=s)) for s in (-3, 5, 61, 7_200, 200_000)]

    assert ages == ["0 s", "5 s", "1 min", "2 h", "2 d"]
