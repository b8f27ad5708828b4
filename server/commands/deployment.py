"""`hipfed-server start`, `status`, `stop` and `run`: the coordinator as a service, and studies on it."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from server.commands.enrolment import DEFAULT_HOME, Home
from server.enrolment.coordinator_home import CoordinatorHome
from shared_model.process import supervision
from shared_model.process.command_refusal import plain_refusal

_PROGRAM = "hipfed-server"


def start(
    *,
    home: Home = DEFAULT_HOME,
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background.")] = False,
    wait_s: Annotated[float, typer.Option(min=0, help="With --detach: seconds to wait until all is up.")] = 120.0,
) -> None:
    """Keep the SuperLink and the gateway before it running, until `stop` or Ctrl-C.

    An expired certificate, with which no hospital connects, is refused. Exit status of --detach: 0 only if both were up
    within --wait-s; else 1, and it goes on trying.
    """
    from server.deployment.services import refuse_taken_ports
    from server.enrolment.authority import check_server_certificate

    with plain_refusal(_PROGRAM):
        place = _open(home)
        supervision.refuse_second(place.processes, _PROGRAM)
        for warning in check_server_certificate(place.tls, place.read_authority_certificate(), now=datetime.now(UTC)):
            typer.echo(f"WARNING: {warning}")
        refuse_taken_ports(place)
        is_ready = supervision.start(
            [sys.executable, "-P", "-m", "server.deployment.services", str(place.folder)],
            folder=place.processes,
            name=_PROGRAM,
            detach_s=wait_s if detach else None,
            say=typer.echo,
        )
    if not is_ready:
        typer.echo("It goes on trying; see `hipfed-server status`, or end it with `hipfed-server stop`.")
        raise typer.Exit(1)


def status(*, home: Home = DEFAULT_HOME) -> None:
    """Say how processes, hospitals and certificates are. Exit status 0 only if all processes are up."""
    from server.deployment.status import print_status

    with plain_refusal(_PROGRAM):
        is_up = print_status(_open(home), Console())
    if not is_up:
        raise typer.Exit(1)


def stop(*, home: Home = DEFAULT_HOME) -> None:
    """End everything that `start` started. Exit status 0 once nothing of it runs.

    A study that runs meanwhile fails; `run --resume` continues it.
    """
    with plain_refusal(_PROGRAM):
        was_running = supervision.stop(_open(home).processes)
    typer.echo("stopped" if was_running else "not running")


def run(
    *,
    home: Home = DEFAULT_HOME,
    study: Annotated[
        Path,
        typer.Option(exists=True, dir_okay=False, help="File of `hipfed-server study`, as approved."),
    ],
    out: Annotated[Path, typer.Option(help="Run folder; must not exist or be empty.")],
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
) -> None:
    """Run a study at the connected hospitals, and show how it goes. Exit status 0 only if it completed.

    Ctrl-C stops the run, and `--resume` continues it. A run whose terminal is lost goes on.
    """
    from functools import partial

    from server.deployment.run import run_deployed
    from server.report.writing import reported
    from server.run_folder.folder import read_status
    from server.run_folder.summary import print_run
    from server.stopping import INTERRUPTED, STOPS, stop_code

    console, errors = Console(), Console(stderr=True)
    with plain_refusal(_PROGRAM), reported(out, partial(console.print, markup=False, highlight=False, soft_wrap=True)):
        try:
            run_deployed(_open(home), study, out, resume=resume, console=console)
        except STOPS as stopped:
            if read_status(out)[0] != "completed":
                errors.print(INTERRUPTED, highlight=False)
                raise typer.Exit(stop_code(stopped)) from stopped
            errors.print("the run had finished", highlight=False)
        print_run(out, console)


def _open(home: Path) -> CoordinatorHome:
    """The coordinator of a folder.

    Raises:
        KeyFileError: others may change what is in it.
        SettingsError: it is none.
    """
    place = CoordinatorHome(home.absolute())
    place.read_settings()
    return place
