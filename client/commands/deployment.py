"""`hipfed-client start`, `status` and `stop`: the hospital as a service."""

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from client.commands.enrolment import DEFAULT_HOME, Home
from client.deployment.courier_place import courier_place, refuse_long_socket
from client.deployment.separation import FAILED
from client.deployment.supervise import processes_of, separation
from client.home import HospitalHome
from shared_model.process import supervision
from shared_model.process.command_refusal import plain_refusal

_PROGRAM = "hipfed-client"


def start(
    *,
    home: Home = DEFAULT_HOME,
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background.")] = False,
    wait_s: Annotated[float, typer.Option(min=0, help="With --detach: seconds to wait until all is up.")] = 120.0,
    courier_user: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Account of the SuperNode, which has no right to the data; as root."),
    ] = None,
    without_separation: Annotated[
        bool, typer.Option("--without-separation", help="Let the SuperNode run with all rights of this user.")
    ] = False,
) -> None:
    """Keep the worker and the SuperNode running, until `stop` or Ctrl-C.

    Exit status of --detach: 0 once the worker is ready and the coordinator has answered, or is known not to answer yet,
    which the last line says; 1 if the SuperNode cannot be kept from the data, or if that took longer than two minutes,
    and then it goes on trying.
    """
    with plain_refusal(_PROGRAM):
        place = HospitalHome(home.absolute())
        refuse_long_socket(courier_place(place, courier_user=courier_user).socket)
        separation(place, place.read_settings(), courier_user=courier_user, without_separation=without_separation)
        command = [sys.executable, "-P", "-m", "client.deployment.supervise", "--home", str(place.folder)]
        command += ["--courier-user", courier_user] if courier_user else []
        if without_separation:
            typer.echo("WITHOUT SEPARATION: the SuperNode, and what the coordinator sends to it, may read the data.")
            command.append("--without-separation")
        begun = supervision.start(
            command,
            folder=processes_of(place),
            name=_PROGRAM,
            detach_s=wait_s if detach else None,
            say=typer.echo,
            has_begun=_has_begun,
        )
        now = supervision.read_status(processes_of(place))
    if not begun:
        typer.echo("It goes on trying; see `hipfed-client status`, or end it with `hipfed-client stop`.")
    if not begun or (now is not None and _cannot_separate(now)):
        raise typer.Exit(1)


def _has_begun(status: supervision.Status) -> bool:
    """The worker is ready, and the SuperNode too or has said why not: the coordinator may be away for days."""
    worker, supernode = status.parts
    return worker.state == "ready" and (supernode.state == "ready" or bool(supernode.reason))


def _cannot_separate(status: supervision.Status) -> bool:
    """The SuperNode cannot be started apart from the data, which only a person can mend."""
    return any(FAILED in part.reason for part in status.parts if part.name == "supernode")


def status(*, home: Home = DEFAULT_HOME) -> None:
    """Say what the hospital is doing. Exit status 0 only if it is connected and its worker is ready."""
    with plain_refusal(_PROGRAM):
        place = HospitalHome(home.absolute())
        place.read_settings()
    now = supervision.read_status(processes_of(place))
    if now is None:
        typer.echo("not running")
        raise typer.Exit(1)
    typer.echo(now.line)
    for part in now.parts:
        age = supervision.describe_age(datetime.now(UTC) - part.since)
        typer.echo(f"{part.name}: {part.state} for {age}, restarts {part.restarts}")
    if not now.ready:
        raise typer.Exit(1)


def stop(*, home: Home = DEFAULT_HOME) -> None:
    """End everything that `start` started. Exit status 0 once nothing of it runs."""
    with plain_refusal(_PROGRAM):
        place = HospitalHome(home.absolute())
        place.read_settings()
        was_running = supervision.stop(processes_of(place))
    typer.echo("stopped" if was_running else "not running")
