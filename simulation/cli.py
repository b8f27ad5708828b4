"""`hipfed-sim`: studies on one machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from shared_model.config import PHASES
from shared_model.process.command_refusal import plain_refusal
from shared_model.process.command_version import Version
from simulation.bench.cli import bench
from simulation.compare.cli import compare
from simulation.scenarios import SCENARIOS

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

app.add_typer(bench, name="bench")
app.command()(plain_refusal("hipfed-sim")(compare))
ROUNDS = tuple(f"rounds-{phase}" for phase in PHASES)
_SCENARIO_HELP = "; ".join(f"{name}: {text}" for name, text in SCENARIOS.items())


@app.callback()
def main(*, version: Version = False) -> None:
    """Federated studies on one machine: synthetic hospitals with a known truth, and runs over Flower."""


@contextmanager
def _stopped_plainly(out: Path) -> Iterator[None]:
    """A run that a signal ended says how it stands; what had finished by then is a finished run."""
    from server.run_folder.folder import read_status
    from server.stopping import INTERRUPTED, STOPS, stop_code

    try:
        yield
    except STOPS as stop:
        finished = read_status(out)[0] == "completed"
        Console(stderr=True).print("the run had finished" if finished else INTERRUPTED, highlight=False)
        if not finished:
            raise typer.Exit(stop_code(stop)) from stop


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
    from simulation.cohort import write_cohort

    with plain_refusal("hipfed-sim"):
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
    rounds: Annotated[
        int | None,
        typer.Option(min=1, help="Most rounds of each phase that has any (see its line); --set rounds-PHASE for one."),
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="fedavg, fedprox, fedadam, fedyogi, scaffold or newton.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting; fold=0..4 runs five folds.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
) -> None:
    """Train and evaluate on a cohort, over Flower's simulation engine."""
    from server.report.writing import reported
    from server.run_folder.summary import print_run
    from shared_model.config import parse_assignments, parse_settings
    from simulation.run import run_cohort

    console = Console()
    with plain_refusal("hipfed-sim"):
        named: dict[str, str] = {}
        given = parse_assignments(settings or [])
        if strategy is not None:
            named["strategy"] = strategy
        if rounds is not None:
            of_phases = {f"rounds-{phase}": str(rounds) for phase in parse_settings({}).phases}
            named |= {key: value for key, value in of_phases.items() if key not in given}
            told = ", ".join(f"{key}={named.get(key, given.get(key, 0))}" for key in ROUNDS)
            console.print(f"--rounds {rounds}: {told}", markup=False, highlight=False)
        assignments = {**named, **given}
        with reported(out, partial(console.print, markup=False, highlight=False, soft_wrap=True)):
            with _stopped_plainly(out):
                run_cohort(cohort, out, assignments=assignments, resume=resume, console=console)
            print_run(out, console)


@app.command()
def validate(
    *,
    run: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of a finished run.")],
    cohort: Annotated[
        Path,
        typer.Option(exists=True, file_okay=False, help="One folder a hospital, none of which the model has seen."),
    ],
    out: Annotated[Path | None, typer.Option(help="File to write (.json); must not exist.")] = None,
) -> None:
    """Score a finished model on all patients of hospitals that it never saw: external validation."""
    import json

    from shared_model.errors import SettingsError
    from shared_model.process.files import replace_file
    from simulation.decoded import decoded_beside
    from simulation.finished.validation import print_validation, validate_run

    console = Console()
    with plain_refusal("hipfed-sim"):
        if out is not None and (out.exists() or out.suffix != ".json" or not out.resolve().parent.is_dir()):
            raise SettingsError(f"--out at {out}: expected a new .json file in a folder that exists, got another.")
        with decoded_beside(cohort, run) as cache_dir:
            content = validate_run(run, cohort, cache_dir=cache_dir)
        print_validation(content, console)
        if out is not None:
            replace_file(out, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
            console.print(f"written to {out}", markup=False, soft_wrap=True)
