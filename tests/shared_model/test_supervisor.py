"""Parts that are kept running, and all of them ended."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from shared_model import supervised
from shared_model.errors import LockedError, SettingsError
from shared_model.folder_lock import hold_lock
from shared_model.guardian import MARK, end_marked, marked_processes
from shared_model.part import Ending, Part
from shared_model.supervised import LOCK, STATUS, describe_age, read_status, refuse_second, start, stop
from shared_model.supervisor import LONGEST_WAIT_S, Supervisor

ROOT = Path(__file__).resolve().parents[2]
Make = Callable[..., tuple[Supervisor, list[str]]]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

# Two parts, the second with a child that leaves its session and its parent, as Flower's processes do.
SITE = """
import os, subprocess, sys
from datetime import timedelta
from pathlib import Path
import shared_model.guardian
from shared_model.part import Part
from shared_model.supervisor import Supervisor
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

SLEEP = "import time; print('up', flush=True); time.sleep(120)"
CHILD = (
    "import subprocess, sys; "
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)'], start_new_session=True); "
)
shared_model.guardian.STOP_TIMEOUT_S = 1.0
parts = [Ready("one", SLEEP), Ready("two", CHILD + SLEEP)]
Supervisor(parts, folder=folder / "processes", describe=lambda: "working", say=print).run()
"""


class ScriptPart(Part):
    """A part that is a line of Python; ready once it has said "up"."""

    def __init__(self, name: str, folder: Path, script: str, **attributes: object) -> None:
        super().__init__(name, folder=folder, environment=ENVIRONMENT)
        self.script, self.up, self.starts = script, False, 0
        self.wrong, self.afterwards, self.ending = "", "", Ending("it ended")
        for key, value in attributes.items():
            setattr(self, key, value)

    def command(self) -> Sequence[str]:
        self.starts += 1
        return [sys.executable, "-c", self.script]

    def is_ready(self) -> bool:
        return self.up

    def made_ready(self) -> str:
        return self.afterwards

    def trouble(self) -> str:
        return self.wrong

    def forget(self) -> None:
        super().forget()
        self.up = False

    def observe(self, line: str) -> None:
        super().observe(line)
        self.up = self.up or line == "up"


UP = "import time; print('up', flush=True); time.sleep(60)"


def _wait(condition: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Make]:
    """Makes a supervisor that the test steps by hand; ends what it started."""
    made: list[Supervisor] = []

    def make(*parts: Part) -> tuple[Supervisor, list[str]]:
        said: list[str] = []
        jitter = random.Random(0)
        supervisor = Supervisor(
            parts, folder=tmp_path / "processes", describe=lambda: "here", say=said.append, jitter=jitter
        )
        made.append(supervisor)
        return supervisor, said

    yield make
    for supervisor in made:
        supervisor._end_all()


def _step_until(supervisor: Supervisor, condition: Callable[[], bool]) -> None:
    def stepped() -> bool:
        supervisor.step(lambda _: None)
        return condition()

    _wait(stepped)


def _status(folder: Path) -> supervised.Status:
    with hold_lock(folder / "processes", LOCK):
        status = read_status(folder / "processes")
    assert status is not None
    return status


def test_part_is_started_once_those_before_it_are_ready(tmp_path: Path, supervise: Make) -> None:
    first, second = ScriptPart("first", tmp_path, "import time; time.sleep(60)"), ScriptPart("second", tmp_path, UP)
    supervisor, _ = supervise(first, second)

    for _ in range(5):
        supervisor.step(lambda _: None)
    assert (first.starts, second.starts) == (1, 0)
    first.up = True
    _step_until(supervisor, lambda: bool(supervisor.states()["second"] == "ready"))

    assert _status(tmp_path).ready


def test_part_that_ends_is_started_again_after_a_growing_wait(tmp_path: Path, supervise: Make) -> None:
    part = ScriptPart("short", tmp_path, "print('no disk')")
    supervisor, said = supervise(part)
    (slot,) = supervisor._slots
    waits = []
    for _ in range(12):
        slot.start_at = 0.0
        _step_until(supervisor, lambda: slot.state == "starting")
        _step_until(supervisor, lambda: slot.state == "waiting")
        waits.append(slot.start_at - time.monotonic())

    assert part.starts == 12
    assert 0.5 < waits[0] < 1.3
    assert waits[3] > 2 * waits[0]
    assert max(waits) <= LONGEST_WAIT_S * 1.25
    assert min(waits[8:]) > LONGEST_WAIT_S * 0.7
    assert said[-1] == "here; short ended by itself (exit status 0): no disk"
    assert _status(tmp_path).parts[0].restarts == 11


def test_cause_that_needs_a_person_is_given_time(tmp_path: Path, supervise: Make) -> None:
    class Refused(ScriptPart):
        def explain(self, status: int) -> Ending:
            return Ending(f"refused ({status})", min_wait_s=40.0)

    supervisor, said = supervise(Refused("node", tmp_path, "raise SystemExit(3)"))
    _step_until(supervisor, lambda: supervisor._slots[0].reason != "")

    assert supervisor._slots[0].start_at - time.monotonic() > 29
    assert said[-1] == "here; refused (3)"


def test_part_that_is_not_ready_in_time_is_started_again(tmp_path: Path, supervise: Make) -> None:
    part = ScriptPart("slow", tmp_path, "import time; time.sleep(60)", ready_timeout_s=0.5)
    supervisor, said = supervise(part)

    _step_until(supervisor, lambda: part.starts == 2)

    assert "slow was not ready within 0.5 s" in said[-1]


def test_command_that_does_not_exist_is_told_and_tried_again(tmp_path: Path, supervise: Make) -> None:
    class Missing(ScriptPart):
        def command(self) -> Sequence[str]:
            self.starts += 1
            return ["/no/such/program"]

    supervisor, said = supervise(Missing("gone", tmp_path, ""))
    supervisor.step(lambda _: None)

    assert said[-1] == "here; gone: [Errno 2] No such file or directory: '/no/such/program'"
    assert supervisor.states() == {"gone": "waiting"}


def test_part_that_cannot_say_whether_it_is_ready_does_not_end_the_others(tmp_path: Path, supervise: Make) -> None:
    class Unsure(ScriptPart):
        def is_ready(self) -> bool:
            raise SettingsError("port: expected a number, got x.")

    supervisor, said = supervise(ScriptPart("first", tmp_path, UP), Unsure("second", tmp_path, UP))
    _step_until(supervisor, lambda: "second: port" in said[-1])

    assert supervisor.states() == {"first": "ready", "second": "waiting"}


def test_killed_part_is_told_as_such(tmp_path: Path, supervise: Make) -> None:
    supervisor, said = supervise(ScriptPart("node", tmp_path, UP))
    _step_until(supervisor, lambda: bool(supervisor.states()["node"] == "ready"))
    process = supervisor._slots[0].process
    assert process is not None
    process.kill()
    _step_until(supervisor, lambda: supervisor._slots[0].reason != "")

    assert said[-1] == "here; node was killed (SIGKILL)"


def test_ready_part_with_trouble_makes_the_site_not_ready(tmp_path: Path, supervise: Make) -> None:
    part = ScriptPart("node", tmp_path, UP, afterwards="a key was refused")
    supervisor, said = supervise(part)
    _step_until(supervisor, lambda: bool(supervisor.states()["node"] == "ready"))
    assert said[-1] == "here; a key was refused"
    assert _status(tmp_path).ready  # it works all the same
    part.wrong = "connection lost"

    supervisor.step(lambda _: None)

    assert said[-1] == "here; connection lost"
    assert not _status(tmp_path).ready


def test_part_that_does_not_become_ready_says_what_is_in_its_way(tmp_path: Path, supervise: Make) -> None:
    part = ScriptPart("node", tmp_path, "import time; time.sleep(60)", wrong="no connection")
    supervisor, said = supervise(part)

    _step_until(supervisor, lambda: bool(said) and said[-1] == "here; no connection")

    assert supervisor.states()["node"] == "starting"


def test_full_disk_does_not_end_the_supervisor(
    tmp_path: Path, supervise: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shared_model.supervisor.replace_file", full)
    supervisor, _ = supervise(ScriptPart("node", tmp_path, UP))

    _step_until(supervisor, lambda: bool(supervisor.states()["node"] == "ready"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Path]:
    """A supervisor of two parts in a process of its own; yields its folder of processes."""
    process = subprocess.Popen([sys.executable, "-c", SITE, tmp_path], env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    folder = tmp_path / "processes"

    def is_ready() -> bool:
        status = read_status(folder)
        return status is not None and status.ready

    try:
        _wait(is_ready)
        yield folder
    finally:
        stop(folder)
        process.wait(10)


def _running(folder: Path) -> supervised.Status:
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

    _wait(lambda: read_status(site) is None)
    assert marked_processes(status.token) == []


def test_killed_supervisor_leaves_no_process(site: Path) -> None:
    status = _running(site)

    os.kill(status.pid, signal.SIGKILL)

    _wait(lambda: marked_processes(status.token) == [], timeout_s=40)
    assert not stop(site)


def test_processes_of_a_killed_part_are_ended_before_it_starts_again(site: Path) -> None:
    status = _running(site)
    part = status.parts[1]
    left = {process.pid for process in marked_processes(f"{status.token}/two")}
    assert part.pid in left
    assert len(left) == 2

    os.kill(part.pid, signal.SIGKILL)

    _wait(lambda: (now := read_status(site)) is not None and now.ready and now.parts[1].restarts == 1)
    assert {process.pid for process in marked_processes(f"{status.token}/two")}.isdisjoint(left)


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

    with pytest.raises(SettingsError, match="no certificate"):
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


def test_mark_reaches_processes_of_one_part_only() -> None:
    command = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
    processes = [
        subprocess.Popen(command, env={**os.environ, MARK: mark}, stdout=subprocess.PIPE)
        for mark in ("token/one", "token/one-more", "token2/one")
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        assert [found.pid for found in marked_processes("token/one")] == [processes[0].pid]

        assert end_marked("token") == 0

        assert [process.poll() is None for process in processes] == [False, False, True]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_age_is_told_in_its_largest_unit() -> None:
    ages = [describe_age(timedelta(seconds=s)) for s in (-3, 5, 61, 7_200, 200_000)]

    assert ages == ["0 s", "5 s", "1 min", "2 h", "2 d"]
