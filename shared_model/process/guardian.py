"""A process that ends what its launcher started if the launcher cannot: it was killed, or its terminal is gone.

It reads process ids from a pipe. The system closes the pipe with the launcher, however that ends; then every tree of
processes is ended. Why not PR_SET_PDEATHSIG: it reaches only the children, while Flower's own (SuperExec, the app,
Ray) have sessions of their own; it is Linux only; and setting it between fork and exec in a process with threads may
hang.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

STOP_TIMEOUT_S = 10.0
MARK = "HIPFED_PROCESS"  # variable of the environment: whose process this is


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
def guarded(command: Sequence[str], *, home: Path, log: IO[bytes] | None) -> Iterator[Callable[[int], None]]:
    """Yield what puts a process under guard, by its id; who leaves the block has ended its processes.

    Args:
        command: of a guardian, which hands its standard input to `end_left_behind`.
        home: its working directory.
        log: takes what it has to say; None for where this process says it.
    """
    with subprocess.Popen(  # noqa: S603 - a module of ours
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


def end_left_behind(pids: Iterable[str]) -> None:
    """Take process ids until the launcher's end, then end the trees that it left."""
    trees: list[psutil.Process] = []
    for line in pids:
        with suppress(psutil.NoSuchProcess):
            trees.append(psutil.Process(int(line)))  # knows when it started: a later process with its id is another
    for tree in trees:
        end_tree(tree)


def marked_processes(mark: str) -> list[psutil.Process]:
    """The processes whose environment holds this mark, wherever their parents have gone, in the order of their start.

    Args:
        mark: a value of `MARK`, or its beginning up to a slash.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_of_mark = f"{process.environ().get(MARK, '')}/".startswith(f"{mark}/")
            if is_of_mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return sorted(found, key=psutil.Process.create_time)


def end_marked(mark: str) -> int:
    """End all marked processes, those too that they start meanwhile; returns how many are left (they cannot be killed).

    Why beside `end_tree`: a process whose parent was killed is below nobody of ours any more.
    """
    for _ in range(3):
        found = [process for process in marked_processes(mark) if process.pid != os.getpid()]
        if not found:
            return 0
        for process in found:
            with suppress(psutil.NoSuchProcess):
                end_tree(process)
    return len(found)


if __name__ == "__main__":
    end_left_behind(sys.stdin)
    end_marked(sys.argv[1])
