"""Files of runs that others are writing: read without following links, and parsed again only when they changed."""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from shared_model.errors import StudyError

T = TypeVar("T")

LARGEST_FILE = 64 * 2**20
BUDGET_BYTES = 64 * 2**20  # of the files whose content is kept
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe in the folder holds nobody up


@dataclass(frozen=True)
class Fingerprint:
    """Which version of a file it is. Files that are replaced whole differ in their inode, too."""

    inode: int
    mtime_ns: int
    size: int

    @classmethod
    def of(cls, state: os.stat_result) -> Fingerprint:
        """From what the system says of a file."""
        return cls(state.st_ino, state.st_mtime_ns, state.st_size)


@dataclass(frozen=True)
class _Kept(Generic[T]):
    fingerprint: Fingerprint
    value: T | None
    error: str
    bytes_read: int


def find_file(path: Path) -> os.stat_result | None:
    """What the system says of a file; None if there is none, or it is a link or no file."""
    try:
        state = path.lstat()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None
    return state if stat.S_ISREG(state.st_mode) else None


class FileCache:
    """What files said when they were last read.

    Args:
        budget_bytes: how much of files may be kept; what was used longest ago goes first.
    """

    def __init__(self, budget_bytes: int = BUDGET_BYTES) -> None:
        self._budget, self._bytes = budget_bytes, 0
        self._kept: OrderedDict[tuple[Path, str], _Kept[object]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path, parse: Callable[[bytes], T], *, last_bytes: int | None = None) -> T | None:
        """What `parse` makes of a file; None if there is none.

        Args:
            path: the file.
            parse: a named function of its bytes.
            last_bytes: read only so many, of its end.

        Raises:
            StudyError: it is a link, no file, too large, or `parse` refuses it.
        """
        state = _look(path)
        if state is None:
            return None
        key = (path, parse.__qualname__)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None and kept.fingerprint == Fingerprint.of(state):
                self._kept.move_to_end(key)
                return _give(kept)  # type: ignore[return-value] # the key names the function that made it
        made = _read_anew(path, parse, last_bytes)
        if made is None:
            return None
        self._keep(key, made)
        return _give(made)

    def _keep(self, key: tuple[Path, str], made: _Kept[T]) -> None:
        with self._lock:
            former = self._kept.pop(key, None)
            self._bytes += made.bytes_read - (former.bytes_read if former else 0)
            self._kept[key] = made  # type: ignore[assignment] # of any type
            while self._bytes > self._budget and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].bytes_read


def _look(path: Path) -> os.stat_result | None:
    try:
        state = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StudyError(f"{path.name}: expected a file that can be read, got: {error.strerror}.") from error
    if not stat.S_ISREG(state.st_mode):
        raise StudyError(f"{path.name}: expected a file, got a link or something else. Put the file itself there.")
    return state


def _read_anew(path: Path, parse: Callable[[bytes], T], last_bytes: int | None) -> _Kept[T] | None:
    try:
        with os.fdopen(os.open(path, _FLAGS), "rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise StudyError(f"{path.name}: expected a file, got something else. Put the file itself there.")
            if last_bytes is not None and state.st_size > last_bytes:
                file.seek(-last_bytes, os.SEEK_END)
            content = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        return None  # it was removed since
    except OSError as error:
        raise StudyError(f"{path.name}: expected a file that can be read, got: {error.strerror}.") from error
    fingerprint = Fingerprint.of(state)
    if len(content) > LARGEST_FILE:
        limit = f"{path.name}: expected at most {LARGEST_FILE} bytes, got more. This is no file of a run."
        return _Kept(fingerprint, None, limit, 0)
    try:
        return _Kept(fingerprint, parse(content), "", len(content))
    except StudyError as error:
        return _Kept(fingerprint, None, f"{path.name}: {error}", len(content))


def _give(kept: _Kept[T]) -> T | None:
    if kept.error:
        raise StudyError(kept.error)
    return kept.value
