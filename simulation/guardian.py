"""A process that ends what a launcher started if the launcher cannot: it was killed, or its terminal is gone.

It reads process ids from a pipe. The system closes the pipe with the launcher, however that ends; then every tree of
processes is ended. Why not PR_SET_PDEATHSIG: it reaches only the children, while SuperLink's own (SuperExec, the app,
Ray) have sessions of their own; it is Linux only; and setting it between fork and exec in a process with threads may
hang.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

STOP_TIMEOUT_S = 10.0


def end_tree(top: psutil.Process) -> None:
    """End a process and every process below it (Ray's actors too), first politely."""
    try:
        tree = [*top.children(recursive=True), top]
        top.terminate()
    except psutil.NoSuchProcess:
        return
    _, alive = psutil.wait_procs(tree, timeout=STOP_TIMEOUT_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S)


@contextmanager
def guarded(*, home: Path, run: Path, log: IO[bytes]) -> Iterator[Callable[[int], None]]:
    """Yield what puts a process under guard, by its id; who leaves the block has ended its processes.

    Args:
        home: folder to remove with the processes.
        run: the run folder, whose status says "running" for ever otherwise.
        log: takes what the guardian has to say.
    """
    command = [sys.executable, "-m", "simulation.guardian", str(home), str(run)]
    with subprocess.Popen(  # noqa: S603 - this module
        command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=home, start_new_session=True
    ) as guardian:

        def guard(pid: int) -> None:
            assert guardian.stdin is not None  # noqa: S101 - it is a pipe
            guardian.stdin.write(f"{pid}\n".encode())
            guardian.stdin.flush()

        try:
            yield guard
        finally:
            guardian.kill()


def main(home: Path, run: Path, pids: IO[str]) -> None:
    """Wait for the launcher's end, then end what it left."""
    trees: list[psutil.Process] = []
    for line in pids:
        with suppress(psutil.NoSuchProcess):
            trees.append(psutil.Process(int(line)))  # knows when it started: a later process with its id is another
    for tree in trees:
        end_tree(tree)
    shutil.rmtree(home, ignore_errors=True)
    _say_killed(run)


def _say_killed(run: Path) -> None:
    # Loaded only now: all through the run the guardian stays small.
    from server.run_folder import RunFolder, read_status  # noqa: PLC0415
    from server.run_lock import LAUNCHER_LOCK, hold_lock  # noqa: PLC0415
    from shared_model.errors import LockedError  # noqa: PLC0415

    with suppress(LockedError), hold_lock(run, LAUNCHER_LOCK):  # not where the next launcher is at work already
        if read_status(run)[0] == "running":
            RunFolder(run).write_status("failed", "hipfed-sim was killed; continue with --resume")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.stdin)
