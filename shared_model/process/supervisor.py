"""A small supervisor: keeps the parts of a site running, says how they are, and ends all of them.

It holds a lock, so that there is one of them; a guardian ends the parts should it be killed; every process carries a
mark in its environment, so that one whose parent was killed is found too.
"""

import ctypes
import json
import logging
import logging.handlers
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import psutil

from shared_model.errors import HipfedError
from shared_model.process.files import replace_file
from shared_model.process.folder_lock import hold_lock
from shared_model.process.guardian import MARK, end_marked, end_tree, guarded
from shared_model.process.supervised_process import Ending, Part
from shared_model.process.supervision import LOCK, STATUS

POLL_S = 0.2
WRITE_S = 5.0
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
STEADY_S = 60.0  # a part that ran so long starts anew without the patience of earlier failures
_LOG_BYTES, _LOG_FILES = 10 * 2**20, 3
_PR_SET_CHILD_SUBREAPER = 36
_LONGEST_LINE = 2**16  # bytes; what is longer counts as several

PartState = Literal["waiting", "starting", "ready"]


@dataclass
class _Slot:
    """A part and the process that it is at the moment."""

    part: Part
    log: logging.Logger
    state: PartState = "waiting"
    process: subprocess.Popen[bytes] | None = None
    pump: threading.Thread | None = None
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = 0.0
    start_at: float = 0.0
    failures: int = 0
    restarts: int = -1
    reason: str = ""

    @property
    def trouble(self) -> str:
        """Why the part does not do its work, or not all of it."""
        return (self.part.trouble() if self.process is not None else "") or self.reason


class Supervisor:
    """Keeps parts running, in their order: each is started once those before it are ready.

    Args:
        parts: what to run.
        folder: for logs, status and lock.
        describe: the site's own words on how it does, for the status line.
        say: shows a line; called when something changed.
        jitter: draws the random part of each wait, so that many hospitals do not come back at one moment.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        folder: Path,
        describe: Callable[[], str],
        say: Callable[[str], None],
        jitter: random.Random | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder, self._describe, self._show = folder, describe, say
        self._slots = [_Slot(part, _open_log(folder / f"{part.name}.log")) for part in parts]
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads load, keeps no secret
        self._token = uuid.uuid4().hex
        self._begun = datetime.now(UTC)
        self._stopping = threading.Event()
        self._own: frozenset[int] | None = None
        self._told: tuple[object, ...] = ()
        self._written = 0.0

    def run(self) -> None:
        """Keep the parts running until SIGTERM, SIGHUP or Ctrl-C; then end them all.

        Raises:
            LockedError: another supervisor works on the folder.
        """
        with (
            hold_lock(self._folder, LOCK),
            self._stopped_by_signals(),
            (self._folder / "guardian.log").open("ab") as log,
            guarded(
                [sys.executable, "-P", "-m", "shared_model.process.guardian", self._token], home=self._folder, log=log
            ) as guard,
        ):
            _adopt_orphans()
            self._own = frozenset(child.pid for child in psutil.Process().children())
            try:
                while not self._stopping.wait(POLL_S):
                    self.step(guard)
            finally:
                self._end_all()

    def _say(self, line: str) -> None:
        with suppress(OSError):  # a full disk or a closed terminal must not end what still works
            self._show(line)

    def states(self) -> dict[str, PartState]:
        """State by part."""
        return {slot.part.name: slot.state for slot in self._slots}

    def step(self, guard: Callable[[int], None]) -> None:
        """Look after every part once.

        Args:
            guard: told the id of each process that is started.
        """
        for index, slot in enumerate(self._slots):
            try:
                self._look_after(slot, self._slots[:index], guard)
            except (HipfedError, OSError) as error:  # of the part's own doing: the others are not to end with it
                self._end(slot)
                self._wait(slot, Ending(f"{slot.part.name}: {error}"))
        self._tell()

    def _look_after(self, slot: _Slot, before: Sequence[_Slot], guard: Callable[[int], None]) -> None:
        now = time.monotonic()
        if slot.process is None:
            if now >= slot.start_at and all(other.state == "ready" for other in before):
                self._start(slot, guard)
        elif slot.process.poll() is not None:
            self._end(slot)
            self._wait(slot, slot.part.explain(slot.process.returncode))
        elif reason := slot.part.must_restart():
            self._end(slot)
            if slot.state == "ready":
                slot.failures = 0  # it had been well: nothing speaks for patience
            self._wait(slot, Ending(reason))
        elif slot.state == "starting":
            self._await_ready(slot, now)
        elif now - slot.started > STEADY_S:
            slot.failures = 0

    def _start(self, slot: _Slot, guard: Callable[[int], None]) -> None:
        slot.part.forget()
        environment = {**slot.part.environment, MARK: f"{self._token}/{slot.part.name}"}
        slot.process = subprocess.Popen(  # noqa: S603 - the site's own commands
            slot.part.command(),
            env=environment,
            cwd=slot.part.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal reaches the supervisor only
        )
        with suppress(BrokenPipeError):  # without its guardian a part still works
            guard(slot.process.pid)
        slot.pump = threading.Thread(target=_pump, args=(slot.process, slot.part, slot.log), daemon=True)
        slot.pump.start()
        slot.started, slot.restarts = time.monotonic(), slot.restarts + 1
        _change(slot, "starting")

    def _await_ready(self, slot: _Slot, now: float) -> None:
        if slot.part.is_ready():
            slot.reason = slot.part.made_ready()
            _change(slot, "ready")
        elif slot.part.ready_timeout_s is not None and now - slot.started > slot.part.ready_timeout_s:
            self._end(slot)
            self._wait(slot, Ending(f"{slot.part.name} was not ready within {slot.part.ready_timeout_s:g} s"))

    def _wait(self, slot: _Slot, ending: Ending) -> None:
        """Exponential back-off with jitter, no shorter than the cause asks for."""
        wait_s = min(FIRST_WAIT_S * 2.0**slot.failures, LONGEST_WAIT_S)
        wait_s = max(wait_s, ending.min_wait_s) * self._jitter.uniform(0.75, 1.25)
        slot.failures = min(slot.failures + 1, 16)
        slot.process, slot.reason = None, ending.reason
        slot.start_at = time.monotonic() + wait_s
        _change(slot, "waiting")

    def _end(self, slot: _Slot) -> None:
        """End a part and whatever its process has left."""
        if slot.process is None:
            return
        if slot.process.poll() is None:
            end_tree(psutil.Process(slot.process.pid))
        slot.process.wait()
        end_marked(f"{self._token}/{slot.part.name}")
        self._end_strays()
        if slot.pump is not None:
            slot.pump.join(timeout=2.0)  # what it said last tells why it ended

    def _end_strays(self) -> None:
        """End what a part left behind without its mark and its parent: such processes were handed to this one."""
        if self._own is None:
            return
        known = self._own | {slot.process.pid for slot in self._slots if slot.process is not None}
        for child in psutil.Process().children():
            if child.pid not in known:
                end_tree(child)

    def _end_all(self) -> None:
        for slot in reversed(self._slots):
            self._end(slot)
            slot.process = None
            _change(slot, "waiting")
            for handler in slot.log.handlers:
                handler.close()
        end_marked(self._token)
        self._write("stopped")
        self._say("stopped")

    def _tell(self) -> None:
        state = tuple((slot.state, slot.trouble, slot.restarts) for slot in self._slots)
        if state != self._told or time.monotonic() - self._written > WRITE_S:
            line = self._line()
            if state != self._told:
                self._say(line)
            self._told = state
            self._write(line)

    def _line(self) -> str:
        troubles = [slot.trouble for slot in self._slots if slot.trouble]
        return "; ".join([self._describe(), *troubles])

    def _write(self, line: str) -> None:
        content = {
            "pid": os.getpid(),
            "token": self._token,
            "started": _iso(self._begun),
            "updated": _iso(datetime.now(UTC)),
            "ready": all(slot.state == "ready" and not slot.part.trouble() for slot in self._slots),
            "line": line,
            "parts": [
                {
                    "name": slot.part.name,
                    "state": slot.state,
                    "since": _iso(slot.since),
                    "pid": None if slot.process is None else slot.process.pid,
                    "restarts": max(slot.restarts, 0),
                    "reason": slot.trouble,
                }
                for slot in self._slots
            ],
        }
        self._written = time.monotonic()
        with suppress(OSError):  # a full disk must not end what still works
            replace_file(self._folder / STATUS, (json.dumps(content, indent=2) + "\n").encode(), mode=0o600)

    @contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        def stop(_number: int, _frame: object) -> None:
            was_stopping = self._stopping.is_set()
            self._stopping.set()
            self._say("still stopping…" if was_stopping else "stopping…")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _adopt_orphans() -> None:
    """Let the system hand to this process, and not to the machine's first, whose parent below it has ended (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _change(slot: _Slot, state: PartState) -> None:
    slot.state, slot.since = state, datetime.now(UTC)


def _pump(process: subprocess.Popen[bytes], part: Part, log: logging.Logger) -> None:
    """Hand a process's output on, line by line."""
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    with process.stdout:
        while raw := process.stdout.readline(_LONGEST_LINE):
            line = raw.decode(errors="replace").rstrip("\n")
            log.info(line)
            part.observe(line)


def _open_log(path: Path) -> logging.Logger:
    """A log that keeps its newest megabytes."""
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, encoding="utf-8", delay=True
    )
    log = logging.Logger(path.stem)  # noqa: LOG001 - one for each supervisor, not for the whole process
    log.addHandler(handler)
    return log


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
