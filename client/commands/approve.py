"""`hipfed-client approve`: a hospital's yes to one study, after it saw what the study is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client.approvals import APPROVALS_FILE, Approvals, check_fit
from client.study_screen import print_approvals, print_study
from shared_model.errors import ApprovalError, HipfedError, SettingsError
from shared_model.study_hash import SHOWN_DIGITS, StudyFile, read_study


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
    console = Console()
    try:
        if [study is not None, listing, withdraw is not None].count(True) != 1:
            raise SettingsError("approve: expected one of STUDY.json, --list and --withdraw HASH, got none or several.")
        if not home.is_dir():
            raise SettingsError(f"--home at {home}: expected the folder of `hipfed-client keygen`, got none.")
        approvals = Approvals(home.absolute() / APPROVALS_FILE)
        if withdraw is not None:
            gone = approvals.withdraw(withdraw)
            console.print(f"withdrawn: study {gone.sha256[:SHOWN_DIGITS]}", highlight=False)
        elif study is not None:
            _approve(approvals, read_study(study), yes=yes, console=console)
        else:
            print_approvals(console, approvals.read())
    except HipfedError as error:
        Console(stderr=True).print(
            f"hipfed-client: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        raise typer.Exit(code=1) from error


def _approve(approvals: Approvals, study: StudyFile, *, yes: str | None, console: Console) -> None:
    check_fit(study)
    print_study(console, study)
    if yes is None:
        if not typer.confirm("Approve this study?"):
            raise ApprovalError("nothing was approved.")
    elif yes != study.sha256:
        raise ApprovalError(f"--yes: expected the study's hash {study.sha256}, got {yes!r}. Nothing was approved.")
    new = approvals.add(study)
    console.print(f"{'approved' if new else 'was approved before'}: study {study.sha256}", soft_wrap=True)
