"""`hipfed-sim run`: one study on a cohort folder, or one for each fold with their predictions pooled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from client.data import list_hospitals
from server.app import COHORT, OUT, RESUME, SCHEMA
from server.evaluation import describe_scores
from server.run_folder import RunFolder, read_status
from server.run_lock import APP_LOCK, LAUNCHER_LOCK, LOCKS
from server.study import check_settings
from shared_model.config import Scalar, Settings, parse_settings
from shared_model.errors import SettingsError
from shared_model.folder_lock import hold_lock
from shared_model.privacy.suppression import SmallCellRule
from shared_model.schema import load_schema
from shared_model.score_quantities import unpack_scores
from shared_model.score_sums import ScoreSums
from simulation.flower_run import run_on_flower

FOLD = "fold"
CONFIG = "config.json"


def run_cohort(cohort: Path, out: Path, *, assignments: Mapping[str, str], resume: bool, console: Console) -> None:
    """Run the study of a cohort folder over Flower; `out` tells the result.

    Args:
        cohort: schema.toml and one folder a hospital.
        out: the run folder; with `fold=A..B`, the folder of a run folder for each fold and of the pooled metrics.
        assignments: settings by kebab-case key; `fold` may be a range A..B.
        resume: continue an interrupted run.
        console: where progress is shown.

    Raises:
        SettingsError: a setting is wrong, or the folders are not as they must be.
        SchemaError: the cohort has no valid schema.
        StudyError: another process works on the folder, or a run failed; its folder's status.json says why.
    """
    cohort, out = cohort.resolve(), out.resolve()
    folds = parse_folds(assignments.get(FOLD, "0"))
    plans = [_parse_plan({**assignments, FOLD: fold}) for fold in folds]
    # What does not fit together is told here, not half a minute later in a folder that is then used up.
    check_settings(load_schema(cohort / "schema.toml"), plans[0])
    n_sites = _count_hospitals(cohort, plans[0])
    _check_out(out, resume=resume)
    run_fold = partial(_run_fold, cohort, n_sites=n_sites, resume=resume, console=console)
    with hold_lock(out, LAUNCHER_LOCK):
        if len(folds) == 1:
            if not _is_done(out, plans[0]):
                run_fold(out, settings=plans[0])
            return
        parts = [out / f"{FOLD}-{fold}" for fold in folds]
        done = [_is_done(part, settings) for part, settings in zip(parts, plans, strict=True)]
        for part, settings, is_done in zip(parts, plans, done, strict=True):
            if not is_done:
                with hold_lock(part, LAUNCHER_LOCK):
                    run_fold(part, settings=settings)
        _pool_folds(out, folds, plans[0])


def _parse_plan(values: Mapping[str, Scalar]) -> Settings:
    """Settings whose file is named whatever the working directory: the app has another one.

    Raises:
        SettingsError: a setting is wrong, or the file does not exist.
    """
    settings = parse_settings(values)
    if not settings.image_weights:
        return settings
    weights = Path(settings.image_weights).expanduser().resolve()
    if not weights.is_file():
        raise SettingsError(f"image-weights: expected a file, got none at {weights}. Check the path.")
    return settings.model_copy(update={"image_weights": str(weights)})


def _count_hospitals(cohort: Path, settings: Settings) -> int:
    n_sites = len(list_hospitals(cohort))
    if n_sites < settings.min_sites:
        raise SettingsError(
            f"cohort at {cohort}: expected at least {settings.min_sites} hospital folders (min-sites), got {n_sites}. "
            f"Say --set min-sites={n_sites} if so few are meant."
            if n_sites
            else f"cohort at {cohort}: expected one folder a hospital, got none."
        )
    return n_sites


def parse_folds(text: str) -> list[int]:
    """Fold numbers of `3` or of a range `0..4`, both ends included.

    Raises:
        SettingsError: neither of the two.
    """
    first, dots, last = text.partition("..")
    try:
        folds = list(range(int(first), int(last if dots else first) + 1))
    except ValueError:
        folds = []
    if not folds:
        raise SettingsError(f"fold: expected a number or a range such as 0..4, got {text!r}.")
    return folds


def _is_done(path: Path, settings: Settings) -> bool:
    """Whether the folder holds the finished run of these settings.

    Raises:
        SettingsError: it holds a run with other settings, finished or not.
    """
    old = RunFolder(path).read_json(CONFIG).get("settings")
    if old is not None:
        old = parse_settings(old).to_config()  # an older version's run has the defaults of what it did not know
        changed = sorted(k for k, v in settings.to_config().items() if k != "expected-sites" and old[k] != v)
        if changed:
            raise SettingsError(
                f"--resume at {path}: expected the run's own settings, got others for {', '.join(changed)}. "
                "Repeat the command of the run, or start a new one."
            )
    return read_status(path)[0] == "completed"


def _check_out(out: Path, *, resume: bool) -> None:
    if out.exists() and not out.is_dir():
        raise SettingsError(f"--out at {out}: expected a folder, got a file.")
    if not resume and out.exists() and any(path.name not in LOCKS for path in out.iterdir()):
        raise SettingsError(
            f"--out at {out}: expected a new or empty folder, got one with files. Choose another, or --resume."
        )
    if resume and not out.is_dir():
        raise SettingsError(f"--resume at {out}: expected a run folder, got none.")


def _run_fold(
    cohort: Path,
    out: Path,
    *,
    settings: Settings,
    n_sites: int,
    resume: bool,
    console: Console,
) -> None:
    folder = RunFolder(out)
    settings = settings.model_copy(update={"expected_sites": settings.expected_sites or n_sites})
    run_config = {
        COHORT: str(cohort),
        SCHEMA: "",
        OUT: str(out),
        RESUME: resume,
        **settings.to_config(),
    }
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[last]}"),
        console=console,
    )
    with progress:
        with hold_lock(out, APP_LOCK):  # an app without a launcher, of plain `flwr run`, may be at work here
            watch = Watch(folder, progress, settings=settings, n_sites=n_sites)
        run_on_flower(folder=folder, run_config=run_config, n_sites=n_sites, watch=watch, say=watch.say)
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


def _pool_folds(out: Path, folds: Sequence[int], settings: Settings) -> None:
    """Out-of-fold predictions of all folds together: every patient is scored once, by a model that never saw them."""
    sums = ScoreSums.zero()
    for fold in folds:
        sums = sums + unpack_scores(RunFolder(out / f"fold-{fold}").read_scores())
    rule = SmallCellRule.of(settings)
    metrics = {"folds": list(folds), "test": describe_scores(sums, {}, rule)}
    folder = RunFolder(out)
    folder.write_json("metrics.json", metrics)
    folder.write_status("completed")
