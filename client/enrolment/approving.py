"""Approving a study, listing what is approved, taking an approval back."""

from pathlib import Path

import typer
from rich.console import Console

from client.enrolment.approvals import APPROVALS_FILE, Approvals, check_fit
from client.enrolment.study_screen import print_approvals, print_study
from shared_model.errors import ApprovalError, SettingsError
from shared_model.identity.key_files import refuse_changeable_folder
from shared_model.protocol.study_hash import SHOWN_DIGITS, StudyFile, read_study


def change_approvals(home: Path, *, study: Path | None, yes: str | None, listing: bool, withdraw: str | None) -> None:
    """Do one of the three.

    Args:
        home: the hospital's.
        study: file to show and approve.
        yes: hash with which to approve without asking.
        listing: show what is approved.
        withdraw: hash, or its beginning, of the study whose approval is taken back.

    Raises:
        ApprovalError: it was not approved, or nothing has the hash.
        KeyFileError: the home is another user's, or others may change it.
        SettingsError: none or several of them are asked for, or there is no such home.
    """
    if [study is not None, listing, withdraw is not None].count(True) != 1:
        raise SettingsError("approve: expected one of STUDY.json, --list and --withdraw HASH, got none or several.")
    if not home.is_dir():
        raise SettingsError(f"--home at {home}: expected the folder of `hipfed-client keygen`, got none.")
    if not listing:
        refuse_changeable_folder(home)  # what another user writes there the worker could not read
    console, approvals = Console(), Approvals(home.absolute() / APPROVALS_FILE)
    if withdraw is not None:
        gone = approvals.withdraw(withdraw)
        console.print(f"withdrawn: study {gone.sha256[:SHOWN_DIGITS]}", highlight=False)
    elif study is not None:
        _approve(approvals, read_study(study), yes=yes, console=console)
    else:
        print_approvals(console, approvals.read())


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
