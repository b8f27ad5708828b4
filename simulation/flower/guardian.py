"""The guardian of one run or comparison: it clears away temporary files, too, and the status tells what happened."""

import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO

from shared_model.process.guardian import end_left_behind
from shared_model.process.guardian import guarded as guarded_by


def guarded(
    *, home: Path, run: Path, log: IO[bytes] | None, lock: str, go_on: str
) -> AbstractContextManager[Callable[[int], None]]:
    """As `shared_model.process.guardian.guarded`.

    Args:
        home: folder to remove with the processes.
        run: the folder of results, whose status says "running" for ever otherwise.
        log: takes what the guardian has to say; None for where this process says it.
        lock: of that folder, which the launcher holds.
        go_on: how to continue what was killed.
    """
    command = [sys.executable, "-m", "simulation.flower.guardian", str(home), str(run), lock, go_on]
    return guarded_by(command, home=home, log=log)


def main(home: Path, run: Path, pids: IO[str], *, lock: str, go_on: str) -> None:
    """Wait for the launcher's end, then end what it left."""
    end_left_behind(pids)
    shutil.rmtree(home, ignore_errors=True)
    _say_killed(run, lock=lock, go_on=go_on)


def _say_killed(run: Path, *, lock: str, go_on: str) -> None:
    # Loaded only now: all through the run the guardian stays small.
    from server.run_folder.folder import RunFolder, read_status  # noqa: PLC0415
    from shared_model.errors import LockedError  # noqa: PLC0415
    from shared_model.process.folder_lock import hold_lock  # noqa: PLC0415

    with suppress(LockedError), hold_lock(run, lock):  # not where the next launcher is at work already
        if read_status(run)[0] == "running":
            RunFolder(run).write_status("interrupted", f"hipfed-sim was killed; {go_on}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.stdin, lock=sys.argv[3], go_on=sys.argv[4])
