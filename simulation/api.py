"""hipfed from Python: run and compare studies, open results, score patients, validate a model elsewhere."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from client.prediction import predict
from server.report.writing import reported
from shared_model.config import Scalar
from simulation.decoded import decoded_beside
from simulation.finished.validation import validate_run
from simulation.notebook.results import RunResults, open_results
from simulation.run import run_cohort

__all__ = ["compare", "open_results", "predict", "run", "validate"]


def run(
    cohort: Path | str, out: Path | str, *, resume: bool = False, console: Console | None = None, **settings: Scalar
) -> RunResults:
    """Train, evaluate and explain a study over Flower's simulation engine, as `hipfed-sim run` does.

    Args:
        cohort: folder with schema.toml and one folder a hospital.
        out: run folder; must not exist or be empty, but for `resume`.
        resume: continue an interrupted run.
        console: where progress is shown; nowhere if not given.
        settings: by their names with underscores: `rounds_fusion=20`; `fold="0..4"` runs five folds.

    Raises:
        SettingsError: a setting is unknown or wrong, or the folders are not as they must be.
        SchemaError: the cohort has no valid schema.
        StudyError: the run failed; status.json in its folder says why.
    """
    shown = console or Console(quiet=True)
    folder = Path(out)
    with reported(folder, partial(shown.print, markup=False, highlight=False, soft_wrap=True)):
        run_cohort(Path(cohort), folder, assignments=_assignments(settings), resume=resume, console=shown)
    return open_results(folder)


def compare(
    cohort: Path | str,
    out: Path | str,
    *,
    folds: int = 5,
    seeds: int = 3,
    arms: tuple[str, ...] = (),
    workers: int = 2,
    console: Console | None = None,
    **settings: Scalar,
) -> pd.DataFrame:
    """Compare federated, pooled, local and other models on the same folds, as `hipfed-sim compare` does.

    Args:
        cohort: as in `run`.
        out: folder of results; what it holds of the same tasks is used again.
        folds: held out in turn.
        seeds: predictions are averaged over so many.
        arms: names or groups; empty = all that the study has.
        workers: models trained side by side.
        console: as in `run`.
        settings: as in `run`, of all arms.

    Returns:
        The table of arms, as in `arms.csv`; comparison.md and its figures lie in `out`.

    Raises:
        SettingsError, SchemaError: as in `run`.
        DataError: a hospital's folder breaks the data contract.
        StudyError: an arm could not be trained; the report is of the others.
    """
    from simulation.compare.running import Plan, compare_cohort  # noqa: PLC0415 - matplotlib and scikit-learn

    plan = Plan(
        cohort=Path(cohort),
        out=Path(out),
        folds=folds,
        seeds=seeds,
        arms=arms,
        workers=workers,
        assignments=_assignments(settings),
    )
    with decoded_beside(plan.cohort, plan.out):
        compare_cohort(plan, console=console or Console(quiet=True))
    return pd.read_csv(plan.out / "arms.csv")


def validate(run: Path | str, cohort: Path | str) -> dict[str, Any]:
    """External validation of a finished model, as `hipfed-sim validate` does; see `validate_run`."""
    folder = Path(cohort)
    with decoded_beside(folder, Path(run)) as cache_dir:
        return validate_run(Path(run), folder, cache_dir=cache_dir)


def _assignments(settings: Mapping[str, Scalar]) -> dict[str, str]:
    """Settings as a command line gives them."""
    return {
        name.replace("_", "-"): str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in settings.items()
    }
