"""`hipfed-client approve`: a hospital's yes to one study, after it saw what the study is."""

from pathlib import Path
from typing import Annotated

import typer

from shared_model.process.command_refusal import plain_refusal


def approve(
    *,
    study: Annotated[
        Path | None, typer.Argument(metavar="[STUDY.json]", help="File of `hipfed-server study`, from the coordinator.")
    ] = None,
    home: Annotated[Path, typer.Option(file_okay=False, help="The hospital's folder of keys and settings.")] = Path(
        "hospital"
    ),
    yes: Annotated[
        str | None, typer.Option("--yes", metavar="HASH", help="Approve without asking, if the study has this hash.")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="Show what is approved.")] = False,
    withdraw: Annotated[
        str | None, typer.Option("--withdraw", metavar="HASH", help="Take an approval back; it holds at once.")
    ] = None,
) -> None:
    """Show a study and approve it: the worker answers no other. A study that changes has to be approved again."""
    from client.enrolment.approving import change_approvals

    with plain_refusal("hipfed-client"):
        change_approvals(home, study=study, yes=yes, listing=listing, withdraw=withdraw)
