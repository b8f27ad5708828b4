"""A run on the screen, as its folder tells it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from server.run_folder.folder import CONFIG, RunFolder
from server.run_folder.lock import APP_LOCK
from shared_model.config import Settings
from shared_model.process.folder_lock import hold_lock

# Files that tell the end of a stage.
_STAGES = {"model.json": "trained", "metrics.json": "evaluated", "explanations.json": "explained"}


@contextmanager
def watched(folder: RunFolder, *, settings: Settings, n_sites: int, console: Console) -> Iterator[Watch]:
    """Show a run's progress: bars on a terminal, where a run that fails leaves them; lines in a file or a pipe.

    Raises:
        LockedError: an app is at work on the folder already, one without a launcher, of plain `flwr run`.
    """
    with hold_lock(folder.path, APP_LOCK):
        lines = Lines(folder, console, n_sites=n_sites)
    if not console.is_terminal:
        lines.say(f"{folder.path.name}: starting")
        yield lines
        lines()
        return
    with show_bars(console) as progress:
        bars = Bars(folder, progress, settings=settings, n_sites=n_sites)
        yield bars
        bars.finish()


def show_bars(console: Console) -> Progress:
    """Bars with text on both sides, which goes on below where the terminal is narrow: no number is ever cut."""
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=_wrapped()),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[last]}", markup=False, table_column=_wrapped()),
        console=console,
    )


def _wrapped() -> Column:
    return Column(no_wrap=False, overflow="fold")


class Watch(ABC):
    """What a run's folder says, on the screen; what a former run left there is not shown.

    Args:
        folder: the run folder.
        console: where to.
        n_sites: hospitals of the cohort.
    """

    def __init__(self, folder: RunFolder, console: Console, *, n_sites: int) -> None:
        self._folder, self._console, self._n_sites = folder, console, n_sites
        self._changed_ns = {name: _changed_ns(folder.path / name) for name in (CONFIG, *_STAGES)}
        self._shown: set[tuple[str, str]] = set()  # config.json is written again once data quality is known

    @abstractmethod
    def __call__(self) -> None:
        """Show what is new."""

    def say(self, text: str) -> None:
        """Show a line; on a terminal above the bars."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _is_new(self, name: str) -> bool:
        """True if a file of the run folder was written since the last look at it."""
        before, self._changed_ns[name] = self._changed_ns[name], _changed_ns(self._folder.path / name)
        return self._changed_ns[name] != before

    def _show_excluded(self) -> None:
        for excluded in self._folder.read_json(CONFIG).get("excluded", {}).items():
            if excluded not in self._shown:
                self._shown.add(excluded)
                self.say("excluded: {}: {}".format(*excluded))


class Bars(Watch):
    """A bar for each phase, and above them who is left out and why.

    Args:
        folder: the run folder.
        progress: the bars.
        settings: of the run.
        n_sites: hospitals of the cohort.
    """

    def __init__(self, folder: RunFolder, progress: Progress, *, settings: Settings, n_sites: int) -> None:
        super().__init__(folder, progress.console, n_sites=n_sites)
        self._progress = progress
        self._bars = {
            phase: progress.add_task(f"{folder.path.name} {phase}", total=settings.rounds(phase) + 1, last="")
            for phase in settings.phases
        }

    def __call__(self) -> None:
        """Show what is new."""
        if self._is_new(CONFIG):
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


class Lines(Watch):
    """A line for each stage and each round, for a log: no control codes, and each is written at once."""

    def __init__(self, folder: RunFolder, console: Console, *, n_sites: int) -> None:
        super().__init__(folder, console, n_sites=n_sites)
        self._n_rounds = len(_read_rounds(folder))
        self._hospitals: str | None = None

    def __call__(self) -> None:
        """Show what is new."""
        name = self._folder.path.name
        if self._is_new(CONFIG):
            self._show_excluded()
            sites = sorted(member["site"] for member in self._folder.read_json(CONFIG).get("roster", []))
            before, self._hospitals = self._hospitals, ", ".join(sites) or "none"
            if self._hospitals != before:
                self.say(f"{name}: hospitals: {self._hospitals}")
        lines = _read_rounds(self._folder)
        for line in lines[self._n_rounds :]:
            self.say(f"{name} {line['phase']} round {line['round']}: {_describe_line(line, n_sites=self._n_sites)}")
        self._n_rounds = len(lines)
        for file, stage in _STAGES.items():
            if self._is_new(file):
                self.say(f"{name}: {stage}")


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
