"""Locks of runs: a process of this machine works on one, or none does.

Read from the system's table of locks. Why not by trying the lock, as `lock_holder` does: for that moment an app that
is just starting would find the folder in use.
"""

from collections.abc import Collection
from pathlib import Path

from server.dashboard.file_cache import find_file
from server.run_folder.lock import LOCKS

TABLE = Path("/proc/locks")


def read_lock_table(table: Path = TABLE) -> frozenset[int] | None:
    """Inodes of the files that are locked; None where the system does not tell.

    The device is left out: on some file systems the table names another than `stat` does. That another locked file has
    the same inode elsewhere makes a dead run look alive, never a live one dead.
    """
    try:
        lines = table.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return frozenset(inode for line in lines if (inode := _parse_inode(line)) is not None)


def _parse_inode(line: str) -> int | None:
    fields = line.split()
    if len(fields) < 6 or fields[1] != "FLOCK":  # a waiting process has "->" there
        return None
    inode = fields[5].rpartition(":")[2]
    return int(inode) if inode.isdecimal() else None


def is_worked_on(run: Path, locked: Collection[int]) -> bool:
    """True if a process holds one of a run folder's locks."""
    states = (find_file(run / name) for name in LOCKS)
    return any(state is not None and state.st_ino in locked for state in states)
