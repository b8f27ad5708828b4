"""`hipfed-sim compare`."""

import signal
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from shared_model.errors import SettingsError
from shared_model.process.command_refusal import plain_refusal


def compare(  # noqa: PLR0913 - one parameter an option
    *,
    cohort: Annotated[Path, typer.Option(help="Folder with schema.toml and one folder a hospital.")],
    out: Annotated[Path, typer.Option(help="Folder of results; what it holds of the same tasks is used again.")],
    folds: Annotated[int, typer.Option(min=3, max=20, help="Folds held out in turn.")] = 5,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds; predictions are averaged over them.")] = 3,
    arms: Annotated[str, typer.Option(help="Comma-separated arms or groups of arms.  [default: all]")] = "",
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=MODALITIES", help="A group of modalities, such as preoperative=static,hip."),
    ] = None,
    points: Annotated[Path | None, typer.Option(help="TOML file of a points score.", dir_okay=False)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A first look: one seed, few arms.")] = False,
    workers: Annotated[int, typer.Option(min=1, help="Models trained side by side.")] = 2,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting, for all arms.")
    ] = None,
) -> None:
    """Compare federated, pooled, local and other models on the same folds: tables, figures, comparison.md."""
    from server.stopping import STOPS, stop_code, stopped_by_signals
    from shared_model.config import parse_assignments
    from simulation.compare.running import GO_ON, Plan, compare_cohort
    from simulation.decoded import decoded_beside

    console = Console()
    with plain_refusal("hipfed-sim"):
        chosen = tuple(name.strip() for name in arms.split(",") if name.strip())
        plan = Plan(
            cohort=cohort,
            out=out,
            folds=folds,
            seeds=1 if quick else seeds,
            arms=chosen,
            quick=quick,
            occasions=_parse_groups(group or []),
            points=points,
            assignments=parse_assignments(settings or []),
            workers=workers,
        )
        try:
            say = partial(console.print, highlight=False)
            with stopped_by_signals(say, also=(signal.SIGHUP,)), decoded_beside(cohort, out):
                compare_cohort(plan, console=console)
        except STOPS as stop:
            console.print(f"interrupted; {GO_ON}", highlight=False)
            raise typer.Exit(stop_code(stop)) from stop
        finally:
            report = out / "comparison.md"
            if report.exists():
                console.print(f"report: {report}", markup=False, soft_wrap=True)


def _parse_groups(texts: list[str]) -> dict[str, tuple[str, ...]]:
    groups = {}
    for text in texts:
        name, equals, modalities = text.partition("=")
        chosen = tuple(part.strip() for part in modalities.split(",") if part.strip())
        if not equals or not name.strip() or not chosen:
            raise SettingsError(f"--group: expected NAME=MODALITY,MODALITY, got {text!r}.")
        if name.strip() in groups:
            raise SettingsError(f"--group {name.strip()}: expected each name once, got it twice.")
        groups[name.strip()] = chosen
    return groups
