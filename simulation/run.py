"""`hipfed-sim run`: one study on a cohort folder, or one for each fold with their predictions pooled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from client.data import list_hospitals
from server.app import COHORT, OUT, RESUME, SCHEMA
from server.evaluation import describe_scores
from server.run_folder import RunFolder, read_status
from shared_model.config import Settings, parse_settings
from shared_model.errors import SettingsError
from shared_model.privacy.suppression import SmallCellRule
from shared_model.schema import load_schema
from shared_model.score_quantities import unpack_scores
from shared_model.score_sums import ScoreSums
from simulation.flower_run import run_on_flower

FOLD = "fold"


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
        StudyError: a run failed; its folder's status.json says why.
    """
    cohort, out = cohort.resolve(), out.resolve()
    folds = parse_folds(assignments.get(FOLD, "0"))
    plans = [parse_settings({**assignments, FOLD: fold}) for fold in folds]
    load_schema(cohort / "schema.toml")  # a wrong schema is told here, not half a minute later
    n_sites = len(list_hospitals(cohort))
    if n_sites < plans[0].min_sites:
        raise SettingsError(
            f"cohort at {cohort}: expected at least {plans[0].min_sites} hospital folders (min-sites), got {n_sites}. "
            f"Say --set min-sites={n_sites} if so few are meant."
            if n_sites
            else f"cohort at {cohort}: expected one folder a hospital, got none."
        )
    _check_out(out, resume=resume)
    if len(folds) == 1:
        if _is_done(out, plans[0]):
            return
        _run_fold(cohort, out, settings=plans[0], n_sites=n_sites, resume=resume, console=console)
        return
    parts = [out / f"fold-{fold}" for fold in folds]
    done = [_is_done(part, settings) for part, settings in zip(parts, plans, strict=True)]
    for part, settings, is_done in zip(parts, plans, done, strict=True):
        if not is_done:
            _run_fold(cohort, part, settings=settings, n_sites=n_sites, resume=resume, console=console)
    _pool_folds(out, folds, plans[0])


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
    old = RunFolder(path).read_json("config.json").get("settings")
    if old is not None:
        changed = sorted(k for k, v in settings.to_config().items() if k != "expected-sites" and old.get(k) != v)
        if changed:
            raise SettingsError(
                f"--resume at {path}: expected the run's own settings, got others for {', '.join(changed)}. "
                "Repeat the command of the run, or start a new one."
            )
    return read_status(path)[0] == "completed"


def _check_out(out: Path, *, resume: bool) -> None:
    if out.exists() and not out.is_dir():
        raise SettingsError(f"--out at {out}: expected a folder, got a file.")
    if not resume and out.exists() and any(out.iterdir()):
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
    phases = settings.phases
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[last]}"),
        console=console,
    )
    with progress:
        bars = {
            phase: progress.add_task(f"{out.name} {phase}", total=settings.rounds(phase) + 1, last="")
            for phase in phases
        }

        def watch() -> None:
            lines = _read_rounds(folder)
            for phase, bar in bars.items():
                of_phase = [line for line in lines if line["phase"] == phase]
                if of_phase:
                    progress.update(bar, completed=len(of_phase), last=_describe_line(of_phase[-1]))

        run_on_flower(folder=folder, run_config=run_config, n_sites=n_sites, watch=watch)
        for phase, bar in bars.items():  # early stopping leaves a bar short of its end
            done = sum(line["phase"] == phase for line in _read_rounds(folder))
            progress.update(bar, total=done, completed=done)


def _describe_line(line: Mapping[str, Any]) -> str:
    auc = "-" if line["val_auc"] is None else f"{line['val_auc']:.3f}"
    failed = f", failed: {', '.join(line['failed'])}" if line["failed"] else ""
    here = f"{len(line['answered'])}/{len(line['asked'])} hospitals"
    return f"{here}, validation loss {line['val_loss']:.4f}, AUC {auc}{failed}"


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
