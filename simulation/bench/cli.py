"""`hipfed-sim bench`: measurements, each with its peer in the same run."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from shared_model.process.command_refusal import plain_refusal
from shared_model.process.files import replace_file

bench = typer.Typer(no_args_is_help=True, help="Measure hipfed beside its peers in the same run.")


@bench.command()
def pooled(
    *,
    cohort: Annotated[Path, typer.Option(help="Folder with schema.toml and one folder a hospital.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 3,
    folds: Annotated[int, typer.Option(min=1, help="Folds held out in turn, their predictions pooled.")] = 1,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting.")] = None,
) -> None:
    """Federated against pooled training."""
    from shared_model.config import parse_assignments
    from simulation.bench.pooled import bench_pooled
    from simulation.decoded import decoded_beside

    console = Console()
    with plain_refusal("hipfed-sim"):
        with decoded_beside(cohort, out):
            result = bench_pooled(
                cohort, seeds=seeds, folds=folds, assignments=parse_assignments(settings or []), console=console
            )
        _write_result(out, result)
    console.print(f"mean AUC {result['mean_auc']}, difference {result['mean_difference']:+.4f}", markup=False)
    console.print(f"written to {out}", markup=False)


@bench.command()
def explanations(
    *,
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    image_size: Annotated[int, typer.Option(min=33, max=1024, help="Width and height of both X-rays, pixels.")] = 224,
    patients_explained: Annotated[int, typer.Option(min=1, help="Patients that are explained.")] = 1,
    background: Annotated[int, typer.Option(min=2, help="Patients that every explainer compares with.")] = 100,
    orders: Annotated[int, typer.Option(min=1, help="Orders of the players, for who draws them.")] = 10,
    timeout_s: Annotated[float, typer.Option(min=1, help="Most seconds of each explainer.")] = 600.0,
    only: Annotated[list[str] | None, typer.Option(help="Explainer or target to run; may be repeated.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting of the model, or threads.")
    ] = None,
) -> None:
    """Our explanations against shap's and captum's, on a random model; needs no cohort."""
    from shared_model.config import parse_assignments
    from simulation.bench.explanations import bench_explanations

    console = Console()
    with plain_refusal("hipfed-sim"):
        result = bench_explanations(
            image_size=image_size,
            patients=patients_explained,
            background=background,
            orders=orders,
            timeout_s=timeout_s,
            only=only or [],
            assignments=parse_assignments(settings or []),
            console=console,
        )
        _write_result(out, result)
    console.print(f"written to {out}", markup=False)


@bench.command()
def fidelity(
    *,
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    patients: Annotated[int, typer.Option(min=100, help="Patients of each of the three cohorts.")] = 8000,
    image_size: Annotated[int, typer.Option(min=33, help="Width and height of the radiographs in pixels.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of cohorts and runs.")] = 0,
    folder: Annotated[
        Path | None, typer.Option(help="Keeps cohorts and runs, and uses those that it has.  [default: none]")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting.")] = None,
) -> None:
    """Explanations against the known truth of synthetic cohorts: shares, planted faults, intervals."""
    from shared_model.config import parse_assignments
    from simulation.bench.fidelity import bench_fidelity

    console = Console()
    with plain_refusal("hipfed-sim"):
        result = bench_fidelity(
            patients=patients,
            image_size=image_size,
            seed=seed,
            assignments=parse_assignments(settings or []),
            folder=folder,
            console=console,
        )
        _write_result(out, result)
    for name, share in result["shares"]["modalities"].items():
        console.print(f"{name}: true share {share['true']:.1%}, recovered {share['recovered']:.1%}", highlight=False)
    console.print(f"written to {out}", markup=False)


@bench.command()
def ranges(
    *,
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    samples: Annotated[int, typer.Option(min=2, help="Studies that are drawn for each truth.")] = 50,
    refits: Annotated[int, typer.Option(min=2, help="Refits of each study.")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="Of all draws.")] = 0,
) -> None:
    """Ranges of shares over refits: how often they hold a known truth; needs no cohort."""
    from simulation.bench.share_refits import TRUE_SHARES, WITHOUT_EFFECT, refit_coverage

    console = Console()
    truths = {"default": TRUE_SHARES, "two groups without effect": WITHOUT_EFFECT}
    result = {
        name: refit_coverage(shares, samples=samples, refits=refits, seed=seed) for name, shares in truths.items()
    }
    _write_result(out, result)
    for name, found in result.items():
        held = ", ".join(f"{value:.0%}" for value in found["range_holds_truth"])
        console.print(f"{name}: ranges that hold the true share: {held}", highlight=False)
    console.print(f"written to {out}", markup=False)


@bench.command()
def deployment(
    *,
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    hospitals: Annotated[int, typer.Option(min=1, max=20, help="Hospitals, all on this machine.")] = 3,
    questions: Annotated[int, typer.Option(min=1, max=1000, help="Train messages to each hospital.")] = 20,
    model_mb: Annotated[int, typer.Option(min=0, help="Model whose round's memory is measured, MB; 0: none.")] = 190,
) -> None:
    """What a message to a warm hospital costs beyond the worker's work; memory of a round by number of hospitals."""
    from simulation.bench.deployment import bench_deployment, print_deployment

    console = Console()
    with plain_refusal("hipfed-sim"):
        result = bench_deployment(hospitals=hospitals, questions=questions, model_mb=model_mb, console=console)
        _write_result(out, result)
    print_deployment(result, console)
    console.print(f"written to {out}", markup=False)


@bench.command()
def dashboard(
    *,
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    runs: Annotated[int, typer.Option(min=3, max=1000, help="Runs in the folder, one of which goes on.")] = 200,
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="Rounds of each run.")] = 200,
    viewers: Annotated[int, typer.Option(min=1, max=900, help="Viewers at the same time.")] = 200,
    seconds: Annotated[float, typer.Option(min=1, help="How long they look on.")] = 60.0,
    repeats: Annotated[int, typer.Option(min=1, help="How often each page is asked for by itself.")] = 20,
    patients: Annotated[int, typer.Option(min=100, help="Patients of the run that all are copies of.")] = 1000,
) -> None:
    """The dashboard's pages, one viewer and many; needs no cohort."""
    from simulation.bench.dashboard import bench_dashboard, print_dashboard

    console = Console()
    with plain_refusal("hipfed-sim"):
        result = bench_dashboard(
            runs=runs,
            rounds=rounds,
            viewers=viewers,
            seconds=seconds,
            repeats=repeats,
            patients=patients,
            console=console,
        )
        _write_result(out, result)
    print_dashboard(result, console)
    console.print(f"written to {out}", markup=False)


def _write_result(out: Path, result: dict[str, Any]) -> None:
    replace_file(out, (json.dumps(result, indent=2, allow_nan=False) + "\n").encode())
