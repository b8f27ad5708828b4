"""`hipfed-client worker`: the trusted half of a hospital, behind its socket."""

from __future__ import annotations

import os
import pwd
import signal
from pathlib import Path
from typing import Annotated

import typer
from flwr.app import RecordDict
from rich.console import Console

from client.approvals import Approvals
from client.data import default_cache_dir
from client.separation import close_to_others
from client.site import Site
from client.worker import Worker
from client.worker_socket import Answer, Door, open_door, serve
from shared_model.errors import HipfedError, SiteError
from shared_model.messages import HANDSHAKE


def worker(
    *,
    data: Annotated[Path, typer.Option(exists=True, file_okay=False, help="The hospital's folder.")],
    name: Annotated[str, typer.Option(help="The hospital's name, as it is enrolled.")],
    socket: Annotated[Path, typer.Option(dir_okay=False, help="Socket to listen on, in a folder of its own.")],
    approvals: Annotated[
        Path, typer.Option(dir_okay=False, help="File of `hipfed-client approve`; what is not in it is refused.")
    ],
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", file_okay=False, help="Folder of decoded data. [default: $HIPFED_CACHE or ~/.cache/hipfed]"
        ),
    ] = None,
    courier_user: Annotated[
        str | None, typer.Option("--courier-user", help="User of the SuperNode. [default: this one]")
    ] = None,
    max_message_mib: Annotated[int, typer.Option("--max-message-mib", min=1, help="Longest question, in MiB.")] = 1024,
) -> None:
    """Answer the courier's questions about approved studies, until SIGTERM.

    It alone opens the data folder. `hipfed-client start` runs it beside the SuperNode.
    """
    screen = Console(stderr=True)
    try:
        door = Door(socket.absolute(), _account(courier_user), max_bytes=max_message_mib * 2**20)
        os.umask(0o077)
        close_to_others()
        site = Site(name, data.resolve(), (cache or default_cache_dir()).absolute())
        with open_door(door) as listener:
            opened = Worker(site, approvals=Approvals(approvals.absolute()))
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, _stop)
            _read_patients(opened, screen)
            screen.print(f"worker of {name}: listening", markup=False, highlight=False)
            serve(listener, door, _answers_of(opened), site=name, log=opened.log)
    except HipfedError as error:
        screen.print(f"hipfed-client: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(code=1) from error


def _answers_of(opened: Worker) -> Answer:
    def answer(kind: str, question: RecordDict) -> RecordDict:
        if kind == HANDSHAKE:  # a new run takes the patients that the folder holds now
            opened.read_again()
        return opened.answer(kind, question)

    return answer


def _read_patients(opened: Worker, screen: Console) -> None:
    """Before the first question, which has a deadline; what is wrong is told here, and again to every question."""
    try:
        _ = opened.site.patients
    except HipfedError as error:
        opened.log.exception("the data cannot be used")
        screen.print(f"worker: {error.public_reason}. It refuses all studies until this is mended.", markup=False)


def _account(user: str | None) -> pwd.struct_passwd | None:
    if user is None:
        return None
    try:
        return pwd.getpwnam(user)
    except KeyError as error:
        raise SiteError(f"--courier-user: expected a user of this machine, got {user!r}.") from error


def _stop(number: int, frame: object) -> None:  # noqa: ARG001
    """End at once: a question that is being answered is asked again, and files are written whole or not at all."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(0)
