"""Files that are replaced whole."""

import errno
import os
import tempfile
from pathlib import Path

_UNFINISHED = "unfinished"


def is_full(error: OSError) -> bool:
    """True if a disk, or a user's part of it, has no room left."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


def is_forbidden(error: OSError) -> bool:
    """True if this user may not read or write there, or nobody may write."""
    return error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}


def replace_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file so that a crash or a power cut leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = write_beside(path, content, mode=mode)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_beside(path: Path, content: bytes, *, mode: int) -> Path:
    """A new hidden file with the content, in the same folder and on the disk; never open to more than its mode."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=f".{_UNFINISHED}")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def sync_folder(folder: Path) -> None:
    """Make the folder's entry of a new file last through a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rewrite_file(path: Path, content: bytes) -> None:
    """As `replace_file`, but within the room that the old file takes where the disk is full.

    Then a crash may leave parts of both: for a small file that is worth less than its being told.
    """
    try:
        replace_file(path, content)
    except OSError as error:
        if not is_full(error) or not path.exists():
            raise
        with path.open("r+b") as file:
            file.write(content)
            file.truncate()


def remove_unfinished(folder: Path) -> None:
    """Remove what `replace_file` was writing in a folder when its process was killed; nobody may be writing now."""
    for path in folder.glob(f".*.{_UNFINISHED}"):
        path.unlink(missing_ok=True)
