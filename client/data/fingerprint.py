"""Tell whether a hospital's files are the same as before: a hash over the content of all of them."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared_model.schema import Schema

READER_VERSION = 6
"""Raise it with every change of what the reader makes of the same files."""

_SETTLED_NS = 2_000_000_000  # a file touched just now may change again without a new time stamp (as in git's index)


@dataclass(frozen=True)
class FileStamp:
    """A file's hash, and the state of the file when it was hashed.

    The system sets the change time at every write; a copy that keeps the modification time cannot set it back.
    """

    size: int
    modified_ns: int
    changed_ns: int
    inode: int
    sha256: str


def stamp_file(path: Path, *, known: FileStamp | None) -> FileStamp:
    """The stamp of a file; it is read only if its state differs from the known one.

    Args:
        path: an existing file.
        known: its stamp when it was last hashed.
    """
    now_ns = time.time_ns()
    state = path.stat()
    if known is not None and known == FileStamp(
        state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, known.sha256
    ):
        return known
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    settled = now_ns - max(state.st_mtime_ns, state.st_ctime_ns) > _SETTLED_NS
    inode = state.st_ino if settled else -1  # matches no file, so the file is hashed again next time
    return FileStamp(state.st_size, state.st_mtime_ns, state.st_ctime_ns, inode, digest)


def stamp_files(folder: Path, files: Sequence[Path], *, known: Mapping[str, FileStamp]) -> dict[str, FileStamp]:
    """The stamps of a hospital's files by path relative to its folder.

    Args:
        folder: the hospital's folder, resolved.
        files: files inside it.
        known: stamps of an earlier start.
    """
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: stamp_file(path, known=known.get(name)) for name, path in names.items()}


def content_key(schema: Schema, stamps: Mapping[str, FileStamp]) -> str:
    """One hash over the reader's version, the schema, and every file's path and content."""
    digest = hashlib.sha256(f"{READER_VERSION}\0{schema.sha256}\0".encode())
    for name in sorted(stamps):
        digest.update(f"{name}\0{stamps[name].sha256}\0".encode())
    return digest.hexdigest()
