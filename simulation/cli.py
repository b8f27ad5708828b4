"""`hipfed-sim`: studies on one machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from server.run_folder import replace_file
from server.summary import print_run
from shared_model.config import parse_assignments
from shared_model.errors import HipfedError
from simulation.bench.pooled import bench_pooled
from simulation.cohort import SCENARIOS, write_cohort
from simulation.run import run_cohort

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Federated studies on one machine: synthetic hospitals with a known truth, and runs over Flower.",
)

BENCHMARKS = {"pooled": bench_pooled}
_SCENARIO_HELP = "; ".join(f"{name}: {text}" for name, text in SCENARIOS.items())


@contextmanager
def _said_plainly() -> Iterator[None]:
    """A user's mistake ends with one message and exit status 1, not with a traceback."""
    try:
        yield
    except HipfedError as error:
        Console(stderr=True).print(f"hipfed-sim: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(1) from error


@app.command()
def cohort(
    *,
    out: Annotated[Path, typer.Option(help="Folder to make; must not exist or be empty.")],
    hospitals: Annotated[
        int | None, typer.Option(help="Number of hospitals.  [default: 5]", show_default=False)
    ] = None,
    patients: Annotated[int | None, typer.Option(help="Patients in all.  [default: 1600]", show_default=False)] = None,
    image_size: Annotated[int, typer.Option(help="Width and height of the radiographs in pixels.")] = 64,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
    scenario: Annotated[str, typer.Option(help=_SCENARIO_HELP)] = "default",
) -> None:
    """Make synthetic hospitals whose truth is known (truth.json)."""
    with _said_plainly():
        truth = write_cohort(
            out, hospitals=hospitals, patients=patients, image_size=image_size, seed=seed, scenario=scenario
        )
    console = Console()
    console.print(f"cohort: {out}", markup=False)
    console.print(f"{truth.patients} patients, {truth.deaths} deaths in {len(truth.hospitals)} hospitals", markup=False)
    shares = ", ".join(f"{name} {share:.0%}" for name, share in truth.shares.items())
    console.print(f"best possible AUC {truth.best_auc:.3f}; true shares: {shares}", markup=False)


@app.command()
def run(
    *,
    cohort: Annotated[Path, typer.Option(help="Folder with schema.toml and one folder a hospital.")],
    out: Annotated[Path, typer.Option(help="Run folder; must not exist or be empty.")],
    rounds: Annotated[int | None, typer.Option(min=1, help="Most rounds of every phase.")] = None,
    strategy: Annotated[str | None, typer.Option(help="fedavg, fedprox, fedadam or fedyogi.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting; fold=0..4 runs five folds.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
) -> None:
    """Train and evaluate on a cohort, over Flower's simulation engine."""
    console = Console()
    with _said_plainly():
        named: dict[str, str] = {}
        if rounds is not None:
            named |= dict.fromkeys(("rounds-unimodal", "rounds-fusion", "rounds-joint"), str(rounds))
        if strategy is not None:
            named["strategy"] = strategy
        assignments = {**named, **parse_assignments(settings or [])}
        run_cohort(cohort, out, assignments=assignments, resume=resume, console=console)
        print_run(out, console)


@app.command()
def bench(
    name: Annotated[Literal["pooled"], typer.Argument(help="pooled: federated against pooled training.")],
    *,
    cohort: Annotated[Path, typer.Option(help="Folder with schema.toml and one folder a hospital.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 3,
    folds: Annotated[int, typer.Option(min=1, help="Folds held out in turn, their predictions pooled.")] = 1,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting.")] = None,
) -> None:
    """Measure hipfed beside its peer in the same run."""
    console = Console()
    with _said_plainly():
        result = BENCHMARKS[name](
            cohort, seeds=seeds, folds=folds, assignments=parse_assignments(settings or []), console=console
        )
        replace_file(out, (json.dumps(result, indent=2) + "\n").encode())
    console.print(f"mean AUC {result['mean_auc']}, difference {result['mean_difference']:+.4f}", markup=False)
    console.print(f"written to {out}", markup=False)
