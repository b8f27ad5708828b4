"""The folder of a simulation's decoded patients: beside the cohort, never among the user's own folders."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from client.data import CACHE_VARIABLE, chosen_cache_dir, cohort_cache_dir


@contextmanager
def decoded_beside(cohort: Path, out: Path) -> Iterator[Path]:
    """A folder for decoded patients, the same for all processes that start within and for a command that goes on.

    It is the one of $HIPFED_CACHE, else hidden in the cohort's folder; where nothing may be written there, hidden
    beside the results (not in them: a run folder holds no patients, and may be given away).

    Args:
        cohort: one folder a hospital.
        out: folder of the results.
    """
    chosen = chosen_cache_dir()
    if chosen is not None:
        yield chosen
        return
    beside = cohort_cache_dir(cohort)
    if not _may_write(cohort):
        beside = out.absolute().parent / beside.name
    os.environ[CACHE_VARIABLE] = str(beside)
    try:
        yield beside
    finally:
        del os.environ[CACHE_VARIABLE]


def _may_write(folder: Path) -> bool:
    """Also root, who may write anywhere, leaves a folder alone that its owner has closed."""
    return os.access(folder, os.W_OK) and bool(folder.stat().st_mode & stat.S_IWUSR)
