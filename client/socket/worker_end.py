"""The worker's end of the socket: one question at a time from the courier, each on a connection of its own.

Who may ask is decided twice: by the modes of the socket and its folder, and by the user that the kernel names for the
other end (SO_PEERCRED): the worker's own, root, or the one user named for the courier. What is not a question of the
protocol ends its connection, never the worker; the log says why, and nothing of the payload.

Why one thread: memory is bounded by one message, and two couriers never share a model. A second question waits in the
kernel's queue; a courier that dawdles holds it up for `HEAD_TIMEOUT_S` or `FRAME_TIMEOUT_S`, no longer.
"""

import os
import pwd
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import Logger
from pathlib import Path

from flwr.app import RecordDict

from client.deployment.courier_place import refuse_long_socket
from client.socket.frames import (
    DEFAULT_MAX_BYTES,
    REPLY,
    CutOffError,
    FrameError,
    pack_head,
    pack_record,
    parse_record,
    read_frame,
)
from shared_model.errors import SiteError
from shared_model.process.folder_lock import hold_lock
from shared_model.protocol.messages import Refusal

Answer = Callable[[str, RecordDict], RecordDict]

HEAD_TIMEOUT_S = 5.0
FRAME_TIMEOUT_S = 120.0
_BACKLOG = 16
_PEER = struct.Struct("3i")
_LOCK = ".worker.lock"


@dataclass(frozen=True)
class Peer:
    """The process at the other end, as the kernel knows it."""

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True)
class Door:
    """Where the worker listens, and to whom.

    Attributes:
        path: of the socket; its folder is made if it does not exist, open to nobody else.
        courier: the user of the courier, where that is not the worker's own; its group may then pass the folder.
        max_bytes: longest payload of a question.
        head_timeout_s: longest wait for the first bytes of a question.
        frame_timeout_s: longest time for the rest of it, and for taking the answer.
    """

    path: Path
    courier: pwd.struct_passwd | None = None
    max_bytes: int = DEFAULT_MAX_BYTES
    head_timeout_s: float = HEAD_TIMEOUT_S
    frame_timeout_s: float = FRAME_TIMEOUT_S

    def lets_in(self, peer: Peer) -> bool:
        """True if this process may ask."""
        courier = set() if self.courier is None else {self.courier.pw_uid}
        return peer.uid in {os.geteuid(), 0} | courier


@contextmanager
def open_door(door: Door, *, prepare: Callable[[], None] = lambda: None) -> Iterator[socket.socket]:
    """The listening socket; it is removed at the end.

    A socket that a killed worker left is replaced; the lock, which ends with its process, tells it from a living one.

    Args:
        door: where and to whom.
        prepare: called before anybody can ask, and once no other worker can listen here.

    Raises:
        LockedError: another worker listens there.
        SiteError: the folder is open to others, or closed to the courier; or the path is too long.
    """
    path = door.path.absolute()
    unfinished = path.with_name(".new")
    refuse_long_socket(path)
    if not path.parent.exists():
        _make_folder(path.parent, door.courier)
    _check_folder(path.parent, door.courier)
    with hold_lock(path.parent, _LOCK), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        # Under its final name the socket has its final mode and is listened to: a courier never meets a half-open door.
        unfinished.unlink(missing_ok=True)
        try:
            prepare()
            listener.bind(str(unfinished))
            _give_access(unfinished, door.courier, mode=0o600)
            listener.listen(_BACKLOG)
            unfinished.replace(path)
            yield listener
        finally:
            unfinished.unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def serve(listener: socket.socket, door: Door, answer: Answer, *, site: str, log: Logger) -> None:
    """Answer questions until the listener is shut down.

    Args:
        listener: of `open_door`.
        door: the same.
        answer: the worker.
        site: the hospital's name, for refusals.
        log: the hospital's.
    """
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # shut down
            return
        with connection:
            try:
                _serve_one(connection, door, answer, site=site, log=log)
            except Exception:
                log.exception("connection failed")


def _serve_one(connection: socket.socket, door: Door, answer: Answer, *, site: str, log: Logger) -> None:
    peer = Peer(*_PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)))
    if not door.lets_in(peer):
        log.warning("connection refused: process %d of user %d is not the courier", peer.pid, peer.uid)
        return
    kind = "?"
    try:
        frame = read_frame(_receiver(connection, door), max_bytes=door.max_bytes)
        kind = frame.kind
        question = parse_record(frame.payload)
    except CutOffError as error:
        log.info("question of process %d dropped: %s", peer.pid, error)
        return
    except TimeoutError:
        log.warning("question of process %d dropped: it did not come in time", peer.pid)
        return
    except FrameError as error:
        log.warning("frame of process %d refused, kind %s: %s", peer.pid, kind, error)
        _reply(connection, Refusal(site=site, reason=error.public_reason).to_record(), door, log=log)
        return
    del frame  # the payload is not needed beside the record
    _reply(connection, answer(kind, question), door, log=log)


def _reply(connection: socket.socket, record: RecordDict, door: Door, *, log: Logger) -> None:
    payload = pack_record(record)
    connection.settimeout(door.frame_timeout_s)
    try:
        connection.sendall(pack_head(REPLY, len(payload)))
        connection.sendall(payload)
    except OSError as error:
        log.warning("answer not taken: %s", type(error).__name__)


def _receiver(connection: socket.socket, door: Door) -> Callable[[int], bytes]:
    """Reads from the connection: the first bytes must come soon, all of them within `frame_timeout_s`."""
    end: float | None = None

    def receive(n_bytes: int) -> bytes:
        nonlocal end
        left = door.head_timeout_s if end is None else end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        try:
            data = connection.recv(n_bytes)
        except ConnectionError:
            return b""
        end = end or time.monotonic() + door.frame_timeout_s
        return data

    return receive


def _make_folder(folder: Path, courier: pwd.struct_passwd | None) -> None:
    folder.mkdir(mode=0o700, parents=True)
    _give_access(folder, courier, mode=0o700)


def _give_access(path: Path, courier: pwd.struct_passwd | None, *, mode: int) -> None:
    """The owner alone; with a courier of another user also its group: a folder it may pass, a socket it may use.

    Raises:
        SiteError: only root may give a file to another user's group.
    """
    path.chmod(mode)
    if courier is None:
        return
    try:
        os.chown(path, -1, courier.pw_gid)
    except PermissionError as error:
        raise SiteError(
            f"{path}: expected the right to give it to the group of {courier.pw_name}, got none. Start the worker as "
            "root, or the courier as the worker's own user."
        ) from error
    path.chmod(0o710 if path.is_dir() else 0o660)


def _check_folder(folder: Path, courier: pwd.struct_passwd | None) -> None:
    """The socket's folder belongs to the worker's user and is closed to others, but not to the courier.

    Raises:
        SiteError: it is not so.
    """
    here = folder.stat()
    passing = courier is not None and here.st_gid == courier.pw_gid
    open_bits = stat.S_IMODE(here.st_mode) & (0o067 if passing else 0o077)
    if here.st_uid != os.geteuid() or open_bits:
        raise SiteError(
            f"socket's folder {folder}: expected one of this user that nobody else can open, got owner {here.st_uid}, "
            f"mode {stat.S_IMODE(here.st_mode):04o}. Choose another, which is made if it does not exist, or chmod it."
        )
    if courier is None:
        return
    for parent in (folder, *folder.parents):
        if not _may_pass(parent, courier):
            raise SiteError(
                f"socket's folder {folder}: expected a way to it for {courier.pw_name}, got {parent}, which that user "
                "may not pass. Choose a place outside it."
            )


def _may_pass(folder: Path, user: pwd.struct_passwd) -> bool:
    here = folder.stat()
    if here.st_uid == user.pw_uid:
        return bool(here.st_mode & stat.S_IXUSR)
    if here.st_gid in {user.pw_gid, *os.getgrouplist(user.pw_name, user.pw_gid)}:
        return bool(here.st_mode & stat.S_IXGRP)
    return bool(here.st_mode & stat.S_IXOTH)
