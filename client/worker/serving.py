"""The worker's process: opens the hospital's data and answers at its socket until SIGTERM."""

import os
import pwd
import signal
import time
from functools import partial
from pathlib import Path

from flwr.app import RecordDict
from rich.console import Console

from client.data import chosen_cache_dir
from client.deployment.separation import close_to_others
from client.enrolment.approvals import Approvals
from client.site import Site
from client.socket.worker_end import Answer, Door, open_door, serve
from client.worker.answering import Worker
from client.worker.data_news import tell_fault
from shared_model.errors import SiteError
from shared_model.protocol.messages import HANDSHAKE


def serve_hospital(
    name: str,
    data: Path,
    *,
    cache_dir: Path | None,
    socket: Path,
    approvals: Path,
    courier_user: str | None,
    max_bytes: int,
) -> None:
    """Answer the courier's questions about approved studies, until SIGTERM.

    Args:
        name: the hospital's.
        data: its folder.
        cache_dir: of decoded data and state; None for $HIPFED_CACHE, else `cache` beside the approvals.
        socket: where to listen.
        approvals: file of what the hospital approved.
        courier_user: the SuperNode's; None for this process's.
        max_bytes: longest question.

    Raises:
        LockedError: another worker listens there.
        SiteError: the socket's place does not fit, or there is no such user.
    """
    screen = Console(stderr=True)
    door = Door(socket, _account(courier_user), max_bytes=max_bytes)
    os.umask(0o077)
    close_to_others()
    site = Site(name, data, (cache_dir or chosen_cache_dir() or approvals.parent / "cache").absolute())
    opened = Worker(site, approvals=Approvals(approvals))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    with open_door(door, prepare=partial(_read_patients, opened, screen)) as listener:
        screen.print(f"worker of {name}: listening", markup=False, highlight=False)
        serve(listener, door, _answers_of(opened, screen), site=name, log=opened.log)


def _answers_of(opened: Worker, screen: Console) -> Answer:
    def answer(kind: str, question: RecordDict) -> RecordDict:
        before = opened.data_fault
        if kind == HANDSHAKE:  # a new run takes the patients that the folder holds now
            opened.read_again()
        started = time.monotonic()
        reply = opened.answer(kind, question)
        opened.log.info("%.40s answered in %.3f s", kind, time.monotonic() - started)
        if opened.data_fault != before:
            _tell(screen, opened.data_fault)
        return reply

    return answer


def _read_patients(opened: Worker, screen: Console) -> None:
    opened.read_patients()
    if opened.data_fault:
        _tell(screen, opened.data_fault)


def _tell(screen: Console, fault: str) -> None:
    screen.print(tell_fault(fault), markup=False, highlight=False, soft_wrap=True)


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
