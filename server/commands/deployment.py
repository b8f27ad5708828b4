"""`hipfed-server start`, `status`, `stop` and `run`: the coordinator as a service, and studies on it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from shared_model import supervised
from shared_model.command_refusal import plain_refusal

Home = Annotated[Path, typer.Option("--home", file_okay=False, help="The coordinator's folder.")]
DEFAULT_HOME = Path("coordinator")
DETACH_S = 120.0
_PROGRAM = "hipfed-server"


def start(
    *,
    home: Home = DEFAULT_HOME,
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background.")] = False,
) -> None:
    """Keep the SuperLink and the gateway before it running, until `stop` or Ctrl-C.

    Exit status of --detach: 0 only if both were up within two minutes.
    """
    from server.deployment.home import open_home

    with plain_refusal(_PROGRAM):
        place = open_home(home)
        is_ready = supervised.start(
            [sys.executable, "-P", "-m", "server.deployment.services", str(place.path)],
            folder=place.processes,
            name=_PROGRAM,
            detach_s=DETACH_S if detach else None,
            say=typer.echo,
        )
    if not is_ready:
        typer.echo("It goes on trying; see `hipfed-server status`, or end it with `hipfed-server stop`.")
        raise typer.Exit(1)


def status(*, home: Home = DEFAULT_HOME) -> None:
    """Say how processes, hospitals and certificates are. Exit status 0 only if all processes are up."""
    from server.deployment.home import open_home
    from server.deployment.status import print_status

    with plain_refusal(_PROGRAM):
        is_up = print_status(open_home(home), Console())
    if not is_up:
        raise typer.Exit(1)


def stop(*, home: Home = DEFAULT_HOME) -> None:
    """End everything that `start` started. Exit status 0 once nothing of it runs.

    A study that runs meanwhile fails; `run --resume` continues it.
    """
    from server.deployment.home import open_home

    with plain_refusal(_PROGRAM):
        was_running = supervised.stop(open_home(home).processes)
    typer.echo("stopped" if was_running else "not running")


def run(
    *,
    home: Home = DEFAULT_HOME,
    schema: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="The study's schema.toml.")],
    out: Annotated[Path, typer.Option(help="Run folder; must not exist or be empty.")],
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting.")] = None,
    min_sites: Annotated[
        int | None, typer.Option(min=1, help="Fewest hospitals to go on with; as --set min-sites.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
) -> None:
    """Run a study at the connected hospitals, and show how it goes. Exit status 0 only if it completed.

    Ctrl-C stops the run, and `--resume` continues it. A run whose terminal is lost goes on.
    """
    from server.deployment.home import open_home
    from server.deployment.run import run_deployed
    from server.run_folder import read_status
    from server.submission import INTERRUPTED
    from server.summary import print_run
    from shared_model.config import parse_assignments

    console, errors = Console(), Console(stderr=True)
    with plain_refusal(_PROGRAM):
        assignments = parse_assignments(settings or [])
        if min_sites is not None:
            assignments["min-sites"] = str(min_sites)
        try:
            run_deployed(open_home(home), schema, out, assignments=assignments, resume=resume, console=console)
        except (KeyboardInterrupt, SystemExit) as stopped:
            if read_status(out)[0] != "completed":
                errors.print(INTERRUPTED, highlight=False)
                code = 128 + (signal.SIGINT if isinstance(stopped, KeyboardInterrupt) else signal.SIGTERM)
                raise typer.Exit(code) from stopped
            errors.print("the run had finished", highlight=False)
        print_run(out, console)
