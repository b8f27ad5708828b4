"""A run on the screen, as its folder tells it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from server.run_folder import CONFIG, RunFolder
from server.run_lock import APP_LOCK
from shared_model.config import Settings
from shared_model.folder_lock import hold_lock


@contextmanager
def watched(folder: RunFolder, *, settings: Settings, n_sites: int, console: Console) -> Iterator[Watch]:
    """Show a run's progress; a run that fails leaves its bars where they are.

    Raises:
        LockedError: an app is at work on the folder already, one without a launcher, of plain `flwr run`.
    """
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[last]}"),
        console=console,
    )
    with progress:
        with hold_lock(folder.path, APP_LOCK):
            watch = Watch(folder, progress, settings=settings, n_sites=n_sites)
        yield watch
        watch.finish()


class Watch:
    """What a run's folder says, on the screen: a bar for each phase, and above them who is left out and why.

    Args:
        folder: the run folder; what a former run left there is not shown.
        progress: the bars.
        settings: of the run.
        n_sites: hospitals of the cohort.
    """

    def __init__(self, folder: RunFolder, progress: Progress, *, settings: Settings, n_sites: int) -> None:
        self._folder, self._progress, self._n_sites = folder, progress, n_sites
        self._config_ns = _changed_ns(folder.path / CONFIG)
        self._shown: set[tuple[str, str]] = set()  # config.json is written again once data quality is known
        self._bars = {
            phase: progress.add_task(f"{folder.path.name} {phase}", total=settings.rounds(phase) + 1, last="")
            for phase in settings.phases
        }

    def __call__(self) -> None:
        """Show what is new."""
        self._show_excluded()
        lines = _read_rounds(self._folder)
        for phase, bar in self._bars.items():
            of_phase = [line for line in lines if line["phase"] == phase]
            if of_phase:
                last = _describe_line(of_phase[-1], n_sites=self._n_sites)
                self._progress.update(bar, completed=len(of_phase), last=last)

    def finish(self) -> None:
        """Fill the bars: early stopping leaves one short of its end."""
        lines = _read_rounds(self._folder)
        for phase, bar in self._bars.items():
            done = sum(line["phase"] == phase for line in lines)
            self._progress.update(bar, total=done, completed=done)

    def say(self, text: str) -> None:
        """Show a line above the bars."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _show_excluded(self) -> None:
        changed_ns = _changed_ns(self._folder.path / CONFIG)
        if changed_ns == self._config_ns:
            return
        self._config_ns = changed_ns
        for excluded in self._folder.read_json(CONFIG).get("excluded", {}).items():
            if excluded not in self._shown:
                self._shown.add(excluded)
                self.say("excluded: {}: {}".format(*excluded))


def _changed_ns(path: Path) -> int:
    """When a file was last written; 0 if it does not exist."""
    return path.stat().st_mtime_ns if path.exists() else 0


def _describe_line(line: Mapping[str, Any], *, n_sites: int) -> str:
    loss, auc = (
        "-" if value is None else f"{value:.{n}f}" for value, n in ((line["val_loss"], 4), (line["val_auc"], 3))
    )
    failed = f", failed: {', '.join(line['failed'])}" if line["failed"] else ""
    return f"{len(line['answered'])}/{n_sites} hospitals, validation loss {loss}, AUC {auc}{failed}"


def _read_rounds(folder: RunFolder) -> list[dict[str, Any]]:
    path = folder.path / "rounds.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
