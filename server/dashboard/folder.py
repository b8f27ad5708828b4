"""RUNS: which runs there are. A name that a request gives is looked up among these, and never joined to a path."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from server.run_folder.lock import COMPARISON_LOCK
from shared_model.errors import SettingsError

_MARKS = ("status.json", "config.json", "rounds.jsonl", "checkpoints")
_FOLD = "fold-"


@dataclass(frozen=True)
class RunPlace:
    """Where a run lies.

    Attributes:
        name: of its folder in RUNS; a fold's is NAME/fold-K.
        path: of its folder, every link resolved.
        folds: names of its folds, where it is a cross-validation.
    """

    name: str
    path: Path
    folds: tuple[str, ...] = ()


def open_runs(folder: Path) -> Path:
    """The folder of runs, every link resolved.

    Raises:
        SettingsError: it is none, or is itself a run.
    """
    root = folder.resolve()
    if not root.is_dir():
        raise SettingsError(f"{folder}: expected a folder of run folders, got none. Name the folder they lie in.")
    if (root / "status.json").exists():
        raise SettingsError(f"{folder}: expected a folder of run folders, got a run. Name the folder it lies in.")
    return root


def list_runs(root: Path) -> dict[str, RunPlace]:
    """All runs by name.

    No run is a comparison of arms, a link that leads out of RUNS, or a folder whose name is no text.
    """
    found: dict[str, RunPlace] = {}
    for name, path in sorted(_list_folders(root, root, accept=_is_text)):
        found |= _list_run(name, path, root)
    return found


def find_run(root: Path, name: str) -> dict[str, RunPlace]:
    """As `list_runs`, of one run and its folds, by the name of any of them; empty if there is none."""
    top = name.partition("/")[0]
    for found, path in _list_folders(root, root, accept=lambda entry: entry == top and _is_text(entry)):
        places = _list_run(found, path, root)
        return places if name in places else {}
    return {}


def _list_run(name: str, path: Path, root: Path) -> dict[str, RunPlace]:
    if os.path.lexists(path / COMPARISON_LOCK):
        return {}
    folds = list(_list_folders(path, root, accept=_is_fold))
    if not folds and not any(os.path.lexists(path / mark) for mark in _MARKS):
        return {}
    folds.sort(key=lambda fold: int(fold[0].removeprefix(_FOLD)))
    run = RunPlace(name, path, tuple(f"{name}/{fold}" for fold, _ in folds))
    return {name: run} | {f"{name}/{fold}": RunPlace(f"{name}/{fold}", inner) for fold, inner in folds}


def _list_folders(folder: Path, root: Path, *, accept: Callable[[str], bool]) -> Iterator[tuple[str, Path]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return  # it was removed since, or is closed to us: then it holds no run that could be shown
    for entry in entries:
        if entry.name.startswith(".") or not accept(entry.name):
            continue
        path = _follow(entry, root)
        if path is not None:
            yield entry.name, path


def _follow(entry: os.DirEntry[str], root: Path) -> Path | None:
    try:
        if not entry.is_symlink():
            return Path(entry.path) if entry.is_dir(follow_symlinks=False) else None
        path = Path(entry.path).resolve(strict=True)
        inside = path.is_relative_to(root) and path != root
        return path if inside and path.is_dir() else None
    except (OSError, RuntimeError):  # a link to nowhere, or to itself
        return None


def _is_fold(name: str) -> bool:
    return name.startswith(_FOLD) and name.removeprefix(_FOLD).isdecimal()


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
