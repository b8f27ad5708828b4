"""A run that ends before its time: what a signal asks for, and what status.json then says."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from server.run_folder.folder import CONTINUE, RunFolder, read_status
from shared_model.errors import HipfedError, StudyError

INTERRUPTED = f"interrupted; {CONTINUE}"


class Stopped(SystemExit):
    """The end of this process because SIGTERM or SIGHUP came; its code is 128 and the signal's number."""


STOPS = (KeyboardInterrupt, Stopped)  # what ends a run that is interrupted, and nothing else does


def stop_code(stop: BaseException) -> int:
    """The exit status of a command that a signal ended, one of `STOPS`."""
    return int(stop.code) if isinstance(stop, Stopped) and stop.code else 128 + signal.SIGINT


@contextmanager
def stopped_by_signals(say: Callable[[str], None], *, also: Sequence[signal.Signals] = ()) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run alike, at once on the screen; a second one does not break off the ending.

    Args:
        say: shows the user a line.
        also: further signals that end it; one that is ignored, as SIGHUP is under nohup, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopping = False

    def stop(number: int, _frame: object) -> None:
        nonlocal stopping
        if number == signal.SIGHUP:  # with the terminal gone, writing to it fails
            _write_to_nobody(terminals)
        with suppress(Exception):  # at any moment, such as within rich's own imports; the signal counts all the same
            say("still stopping…" if stopping else "stopping…")
        if not stopping:
            stopping = True
            raise KeyboardInterrupt if number == signal.SIGINT else Stopped(128 + number)

    terminals = [number for number in (1, 2) if os.isatty(number)]
    wanted = (signal.SIGINT, signal.SIGTERM, *(number for number in also if signal.getsignal(number) != signal.SIG_IGN))
    before = {number: signal.signal(number, stop) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_to_nobody(descriptors: Sequence[int]) -> None:
    with Path(os.devnull).open("wb") as nobody:
        for number in descriptors:
            os.dup2(nobody.fileno(), number)


@contextmanager
def telling_its_end(folder: RunFolder, *, go_on: str = CONTINUE) -> Iterator[None]:
    """Where the block is left by an exception, status.json says so, unless the app finished meanwhile.

    Only a signal interrupts. Whatever else ends this process fails the run, be it that something asks for the end.

    Args:
        folder: the run's; by then, nobody else writes its status.
        go_on: how to continue what was interrupted.

    Raises:
        StudyError: something within asked for this process's end, and no signal did.
    """
    try:
        yield
    except BaseException as error:
        is_plain_exit = isinstance(error, SystemExit) and not isinstance(error, Stopped)
        failure = _explain_exit(error, go_on) if is_plain_exit else error
        if read_status(folder.path)[0] != "completed":
            if isinstance(failure, STOPS):
                folder.write_status("interrupted", go_on)
            else:
                folder.write_status("failed", _describe(failure))
        if failure is error:
            raise
        raise failure from error


def _describe(error: BaseException) -> str:
    return str(error) if isinstance(error, HipfedError) else f"{type(error).__name__}: {error}"


def _explain_exit(error: BaseException, go_on: str) -> StudyError:
    """The reason of an exit is the text that it was to show, which Python allows in place of a status."""
    code = getattr(error, "code", None)
    if isinstance(code, str):
        return StudyError(code)
    return StudyError(
        "the process that leads the run: expected it to see the run's end, got its own, with exit status "
        f"{code or 0}. See the logs there; {go_on}."
    )
