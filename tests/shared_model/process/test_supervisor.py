"""Parts that are kept running, and all of them ended."""

import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from shared_model.errors import SettingsError
from shared_model.process import supervision
from shared_model.process.folder_lock import hold_lock
from shared_model.process.supervised_process import Ending, Part
from shared_model.process.supervision import LOCK, read_status
from shared_model.process.supervisor import LONGEST_WAIT_S, Supervisor
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]
Make = Callable[..., tuple[Supervisor, list[str]]]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


class ScriptPart(Part):
    """A part that is a line of Python; ready once it has said "up"."""

    def __init__(self, name: str, folder: Path, script: str, **attributes: object) -> None:
        super().__init__(name, folder=folder, environment=ENVIRONMENT)
        self.script, self.up, self.starts = script, False, 0
        self.wrong, self.afterwards, self.spoiled = "", "", ""
        for key, value in attributes.items():
            setattr(self, key, value)

    def command(self) -> Sequence[str]:
        self.starts += 1
        return [sys.executable, "-c", self.script]

    def is_ready(self) -> bool:
        return self.up

    def made_ready(self) -> str:
        return self.afterwards

    def must_restart(self) -> str:
        return self.spoiled

    def trouble(self) -> str:
        return self.wrong

    def forget(self) -> None:
        super().forget()
        self.up, self.spoiled = False, ""

    def observe(self, line: str) -> None:
        super().observe(line)
        self.up = self.up or line == "up"


UP = "import time; print('up', flush=True); time.sleep(3600)"


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

    wait_until(stepped)


def _status(folder: Path) -> supervision.Status:
    with hold_lock(folder / "processes", LOCK):
        status = read_status(folder / "processes")
    assert status is not None
    return status


def test_part_is_started_once_those_before_it_are_ready(tmp_path: Path, supervise: Make) -> None:
    first, second = ScriptPart("first", tmp_path, "import time; time.sleep(3600)"), ScriptPart("second", tmp_path, UP)
    supervisor, _ = supervise(first, second)

    for _ in range(5):
        supervisor.step(lambda _: None)
    assert (first.starts, second.starts) == (1, 0)
    first.up = True
    _step_until(supervisor, lambda: bool(supervisor.states()["second"] == "ready"))

    assert _status(tmp_path).ready


def test_part_that_ends_is_started_again_after_a_growingwait_until(tmp_path: Path, supervise: Make) -> None:
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
    part = ScriptPart("slow", tmp_path, "import time; time.sleep(3600)", ready_timeout_s=0.5)
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


def test_part_that_must_restart_is_ended_and_started_again(tmp_path: Path, supervise: Make) -> None:
    part = ScriptPart("node", tmp_path, UP)
    supervisor, said = supervise(part)
    _step_until(supervisor, lambda: bool(supervisor.states()["node"] == "ready"))
    first = supervisor._slots[0].process
    assert first is not None
    part.spoiled = "a question was lost"

    supervisor.step(lambda _: None)

    assert first.poll() is not None
    assert said[-1] == "here; a question was lost"
    _step_until(supervisor, lambda: bool(supervisor.states()["node"] == "ready"))
    assert part.starts == 2


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
    part = ScriptPart("node", tmp_path, "import time; time.sleep(3600)", wrong="no connection")
    supervisor, said = supervise(part)

    _step_until(supervisor, lambda: bool(said) and said[-1] == "here; no connection")

    assert supervisor.states()["node"] == "starting"


def test_full_disk_does_not_end_the_supervisor(
    tmp_path: Path, supervise: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shared_model.process.supervisor.replace_file", full)
    supervisor, _ = supervise(ScriptPart("node", tmp_path, UP))
    monkeypatch.setattr(supervisor, "_show", full)  # its output is a file, too

    _step_until(supervisor, lambda: bool(supervisor.states()["node"] == "ready"))

    assert supervisor.states() == {"node": "ready"}
