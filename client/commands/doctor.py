"""`hipfed-client doctor`: what on this machine, or on the way to the coordinator, keeps the hospital from a study."""

import typer
from rich.console import Console

from client.commands.enrolment import DEFAULT_HOME, Home
from client.home import HospitalHome


def doctor(*, home: Home = DEFAULT_HOME) -> None:
    """Check this machine, the hospital's files and the way to the coordinator; say what to do. Sends nothing of them.

    Exits with 1 where something is at fault.
    """
    from client.doctor import examine, print_findings

    if not print_findings(examine(HospitalHome(home.absolute())), Console()):
        raise typer.Exit(1)
