"""Waits of tests. How fast a machine is decides none: a wait fails only where nothing has moved for a long time."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PATIENCE_S = 600.0  # nothing of ours that works keeps quiet for so long, however busy the machine
_TOLD = (".log", ".jsonl", "log.txt")


def wait_until(
    holds: Callable[[], bool],
    *,
    moving: Callable[[], object] = lambda: None,
    patience_s: float = PATIENCE_S,
    poll_s: float = 0.05,
) -> None:
    """The moment at which a condition holds.

    Args:
        holds: the condition.
        moving: changes as long as there is hope, such as the length of a log.
        patience_s: looked at every so many seconds; without a change it fails.
        poll_s: between two looks.
    """
    seen, end = moving(), time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > end:
            before, seen = seen, moving()
            assert seen != before, f"waited in vain: nothing has moved for {patience_s:g} s"
            end = time.monotonic() + patience_s
        time.sleep(poll_s)


def logs_below(folder: Path) -> Callable[[], int]:
    """The length of all logs and histories below a folder, for `moving`."""

    def length() -> int:
        found = 0
        for place, _, names in os.walk(folder):  # unlike rglob it passes over folders that vanish meanwhile
            for name in names:
                if name.endswith(_TOLD):
                    with suppress(OSError):
                        found += (Path(place) / name).stat().st_size
        return found

    return length


def run_to_end(
    words: Sequence[str | Path], *, watched: Path | None = None, patience_s: float = PATIENCE_S, **options: Any
) -> subprocess.CompletedProcess[str]:
    """A command, run until it ends by itself; it is killed if neither it nor a log has said anything for too long.

    Args:
        words: of the command.
        watched: a folder whose logs tell that it is at work; None if only its own output does.
        patience_s: longest silence, in seconds.
        options: of the process.
    """
    with (
        tempfile.TemporaryFile("w+") as output,
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(words, stdout=output, stderr=errors, text=True, **options) as process,
    ):

        def moving() -> list[int]:
            said = [os.fstat(file.fileno()).st_size for file in (output, errors)]
            return said if watched is None else [*said, logs_below(watched)()]

        try:
            wait_until(lambda: process.poll() is not None, moving=moving, patience_s=patience_s)
        finally:
            process.kill()
        said = []
        for file in (output, errors):
            file.seek(0)
            said.append(file.read())
    return subprocess.CompletedProcess(process.args, process.returncode, *said)
