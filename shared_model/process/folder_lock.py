"""Only one process at a time works on a folder.

The system frees a lock with its process, however that ends; the files stay, because removing one that another process
has just opened would leave two holders.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from shared_model.errors import LockedError
from shared_model.process.files import is_full

_TRIES, _PAUSE_S = 10, 0.05


@contextmanager
def hold_lock(folder: Path, name: str) -> Iterator[None]:
    """Keep other processes out of a folder, which is made, for its owner alone, if it does not exist.

    Args:
        folder: what is locked.
        name: of the lock's file in it, which holds the id of the process.

    Raises:
        LockedError: another process holds the lock, the file system has none, or its file cannot be written.
    """
    with _open(folder, name) as file:
        try:
            _take(file)
        except BlockingIOError as error:
            file.seek(0)
            raise LockedError(
                f"{folder}: in use by process {file.read().strip() or '?'}. Wait for its end, or choose another folder."
            ) from error
        except OSError as error:
            raise LockedError(
                f"{folder / name}: expected a file that can be locked, got: {error.strerror}. Use a local disk."
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _open(folder: Path, name: str) -> IO[str]:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return (folder / name).open("a+", encoding="utf-8")
    except OSError as error:
        if is_full(error):
            raise
        raise LockedError(
            f"{error.filename}: expected a file that this user may write, got: {error.strerror}. Mend the permissions "
            f"of {folder} or its disk's, or work as the user whose it is."
        ) from error


def _take(file: IO[str]) -> None:
    """Take the lock. A look by `lock_holder` holds it for a moment, so it is tried for a while."""
    for _ in range(_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_PAUSE_S)
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_holder(folder: Path, name: str) -> int | None:
    """Id of the process that holds a lock; None if nobody does."""
    path = folder / name
    if not path.is_file():
        return None
    with path.open("r", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = file.read().strip()
            return int(text) if text.isdigit() else None
    return None
