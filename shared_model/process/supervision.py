"""A supervisor seen from other commands: read the state of its parts, start it apart, stop it."""

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from shared_model.errors import LockedError, SettingsError
from shared_model.process.folder_lock import lock_holder
from shared_model.process.guardian import end_marked

LOCK, STATUS, OUTPUT = "lock", "status.json", "supervisor.log"
POLL_S = 0.2
STOP_S = 90.0
SILENCE = timedelta(seconds=45)  # a supervisor writes every 5 s, but for what it takes to end a part


@dataclass(frozen=True)
class PartStatus:
    """How a part is.

    Attributes:
        name: of the part.
        state: waiting (for its next start, or for another part), starting or ready.
        since: when that began, UTC.
        pid: of its process; None while it waits.
        restarts: how often it was started again.
        reason: why it ended last, or what is wrong with it; "" if nothing is.
    """

    name: str
    state: str
    since: datetime
    pid: int | None
    restarts: int
    reason: str


@dataclass(frozen=True)
class Status:
    """How a supervisor's parts are.

    Attributes:
        pid: of the supervisor.
        token: mark of all its processes.
        started: when it began, UTC.
        updated: when it wrote this, UTC.
        ready: whether all parts are ready.
        line: what it says of itself.
        parts: each of them.
    """

    pid: int
    token: str
    started: datetime
    updated: datetime
    ready: bool
    line: str
    parts: tuple[PartStatus, ...]


def read_status(folder: Path) -> Status | None:
    """The status of the supervisor that works on a folder; None if none does."""
    holder = lock_holder(folder, LOCK)
    status = _read_last(folder)
    if status is None or status.pid != holder:
        return None
    silence = datetime.now(UTC) - status.updated
    if silence < SILENCE:
        return status
    why = f"no word from process {holder} for {describe_age(silence)}: it hangs, or its disk is full"
    return replace(status, ready=False, line=f"{why}; before: {status.line}")


def _read_last(folder: Path) -> Status | None:
    """What the last supervisor wrote, whether or not it still runs."""
    try:
        content = json.loads((folder / STATUS).read_text(encoding="utf-8"))
        parts = tuple(
            PartStatus(**{**part, "since": datetime.fromisoformat(part["since"])}) for part in content["parts"]
        )
        started, updated = (datetime.fromisoformat(content[key]) for key in ("started", "updated"))
        return Status(content["pid"], content["token"], started, updated, content["ready"], content["line"], parts)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def refuse_second(folder: Path, name: str) -> None:
    """There is one supervisor a folder.

    Raises:
        LockedError: one is at work.
    """
    holder = lock_holder(folder, LOCK)
    if holder is not None:
        raise LockedError(
            f"{folder.parent}: expected no `{name} start` to run for it, got process {holder}. "
            f"Use that, or end it first with `{name} stop`."
        )


def start(
    command: Sequence[str],
    *,
    folder: Path,
    name: str,
    detach_s: float | None,
    say: Callable[[str], None],
    has_begun: Callable[[Status], bool] = lambda status: status.ready,
) -> bool:
    """Become a supervisor, or start one that outlives this command.

    Args:
        command: the supervisor's, in the foreground.
        folder: of its status.
        name: of the command that the user knows, such as hipfed-server.
        detach_s: how long to wait until it has begun, in seconds; None stays in the foreground.
        say: shows how it is.
        has_begun: whether there is no more to wait for; by default once all parts are ready.

    Returns:
        Whether it had begun in time; if not, it goes on trying.

    Raises:
        LockedError: one is at work already.
        SettingsError: it ended at once.
    """
    refuse_second(folder, name)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if detach_s is None:
        os.execv(command[0], [*command])  # noqa: S606 - the same process, so that its starter's signals reach it
    (folder / OUTPUT).touch(mode=0o600)  # where that is refused: to spawn would blame the command
    pid = _spawn(command, output=folder / OUTPUT)
    end = time.monotonic() + detach_s
    status, begun = None, False
    while not begun and time.monotonic() < end:
        if os.waitpid(pid, os.WNOHANG)[0]:
            said = (folder / OUTPUT).read_text(encoding="utf-8", errors="replace").strip().removeprefix(f"{name}: ")
            raise SettingsError(f"expected `{name} start` to keep running, got its end. It said: {said[-1000:]}")
        status = read_status(folder)
        begun = status is not None and status.pid == pid and has_begun(status)
        time.sleep(0.0 if begun else POLL_S)
    say(f"running in the background (process {pid})")
    say("starting" if status is None else status.line)
    return begun


def _spawn(command: Sequence[str], *, output: Path) -> int:
    """Start a command in a session of its own; its output goes to a file."""
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(output), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn(command[0], [*command], os.environ, file_actions=files, setsid=True)


def stop(folder: Path, *, timeout_s: float = STOP_S) -> bool:
    """End a supervisor and all its processes.

    Args:
        folder: of its status.
        timeout_s: after which it is killed, in seconds.

    Returns:
        Whether one was at work.

    Raises:
        LockedError: something could not be ended.
    """
    holder = lock_holder(folder, LOCK)
    last = _read_last(folder)
    if holder is not None:
        _signal(holder, signal.SIGTERM)
        if not _await_end(folder, holder, timeout_s):
            _signal(holder, signal.SIGKILL)
            _await_end(folder, holder, timeout_s)
    left = 0 if last is None else end_marked(last.token)  # of a supervisor that was killed
    if left or lock_holder(folder, LOCK) == holder is not None:
        raise LockedError(f"{folder}: expected all processes to end, got {left} that did not. Stop them as their user.")
    return holder is not None


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise LockedError(f"process {pid}: expected one of this user, got another's. Stop it as that user.") from error


def _await_end(folder: Path, holder: int, timeout_s: float) -> bool:
    """True if the supervisor has gone, lock and process."""
    end = time.monotonic() + timeout_s
    while lock_holder(folder, LOCK) == holder or _is_running(holder):
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def describe_age(age: timedelta) -> str:
    """A span of time for people.

    >>> describe_age(timedelta(seconds=75)), describe_age(timedelta(hours=50))
    ('1 min', '2 d')
    """
    seconds = max(int(age.total_seconds()), 0)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def describe_unanswered(kind: str, asked: datetime, now: datetime) -> str:
    """That a question is under way, and since when.

    >>> describe_unanswered("train", datetime(2026, 1, 1, 14, 2, tzinfo=UTC), datetime(2026, 1, 1, 14, 5, tzinfo=UTC))
    'question train unanswered since 14:02 UTC (3 min)'
    """
    return f"question {kind} unanswered since {asked:%H:%M} UTC ({describe_age(now - asked)})"
