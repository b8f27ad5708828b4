"""A process that ends what its launcher started if the launcher cannot: it was killed, or its terminal is gone.

It reads process ids from a pipe. The system closes the pipe with the launcher, however that ends; then every tree of
processes is ended. Why not PR_SET_PDEATHSIG: it reaches only the children, while Flower's own (SuperExec, the app,
Ray) have sessions of their own; it is Linux only; and setting it between fork and exec in a process with threads may
hang.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
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
def guarded(command: Sequence[str], *, home: Path, log: IO[bytes]) -> Iterator[Callable[[int], None]]:
    """Yield what puts a process under guard, by its id; who leaves the block has ended its processes.

    Args:
        command: of a guardian, which hands its standard input to `end_left_behind`.
        home: its working directory.
        log: takes what it has to say.
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
