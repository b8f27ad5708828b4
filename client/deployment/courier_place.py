"""Places of the SuperNode's files: the hospital's home, or a folder beside it for another user.

A SuperNode of another user gets a folder of root's beside the home, with three folders in it: `state`, its own; `keys`,
copies of what it proves itself with; `worker`, which it may pass to the worker's socket and not change.
"""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from client.home import HospitalHome
from shared_model.errors import SiteError
from shared_model.identity.key_files import read_node_key, replace_whole

_LONGEST_SOCKET = 107  # bytes, the system's limit


@dataclass(frozen=True)
class CourierPlace:
    """Paths of one SuperNode.

    Attributes:
        state: folder that it may write to: FLWR_HOME, HOME and temporary files.
        authority: the coordinator's CA certificate.
        node_key: its private key.
        socket: the worker's.
    """

    state: Path
    authority: Path
    node_key: Path
    socket: Path

    @property
    def flower(self) -> Path:
        """FLWR_HOME."""
        return self.state / "flower"

    @property
    def temporary(self) -> Path:
        """TMPDIR."""
        return self.state / "tmp"


def courier_place(home: HospitalHome, *, courier_user: str | None) -> CourierPlace:
    """The paths of a hospital's SuperNode.

    Args:
        home: the hospital's.
        courier_user: account that it runs as; None for this one.
    """
    if courier_user is None:
        return CourierPlace(
            state=home.folder / "courier",
            authority=home.authority,
            node_key=home.node_key,
            socket=home.folder / "worker" / "worker.sock",
        )
    beside = home.folder.with_name(f"{home.folder.name}-courier")
    return CourierPlace(
        state=beside / "state",
        authority=beside / "keys" / "ca.crt",
        node_key=beside / "keys" / "node",
        socket=beside / "worker" / "worker.sock",
    )


def refuse_long_socket(path: Path) -> None:
    """Refuse a path at which no socket can be.

    Raises:
        SiteError: it is too long.
    """
    length = len(os.fsencode(path))
    if length > _LONGEST_SOCKET:
        raise SiteError(
            f"socket at {path}: expected a path of at most {_LONGEST_SOCKET} bytes, which is the system's limit, got "
            f"{length}. Choose a folder with a shorter path."
        )


def prepare_courier(home: HospitalHome, *, courier_user: str | None) -> CourierPlace:
    """Make what the SuperNode needs; the worker makes the socket's folder.

    Raises:
        SiteError: ca.crt is missing, there is no such user, or the folders cannot be made or given to it, or are
            another user's, such as a former SuperNode's.
        KeyFileError: the node's key is missing, open to others or damaged.
    """
    read_node_key(home.node_key)
    if not home.authority.is_file():
        raise SiteError(
            f"{home.authority}: expected the coordinator's CA certificate, got none. Ask the coordinator for it, put "
            "it there, and compare its fingerprint by telephone."
        )
    place = courier_place(home, courier_user=courier_user)
    try:
        if courier_user is not None:
            _make(place.state.parent, mode=0o711, owner=None)
            account = pwd.getpwnam(courier_user)
            _refuse_former_user(place, account)
            _make(place.state, mode=0o700, owner=account)
            _make(place.node_key.parent, mode=0o711, owner=None)  # so that the copies cannot be exchanged
            for source, copy in ((home.authority, place.authority), (home.node_key, place.node_key)):
                replace_whole(copy, source.read_bytes(), private=True)
                os.chown(copy, account.pw_uid, account.pw_gid, follow_symlinks=False)
        for folder in (place.state, place.flower, place.temporary):
            _make(folder, mode=0o700, owner=None if courier_user is None else pwd.getpwnam(courier_user))
    except KeyError as error:
        raise SiteError(f"--courier-user: expected a user of this machine, got {courier_user!r}.") from error
    except OSError as error:
        raise SiteError(
            f"{error.filename}: expected a place that can be prepared for the SuperNode, got: {error.strerror}. "
            "Start as root for a SuperNode of another user; else mend the permissions."
        ) from error
    return place


def _refuse_former_user(place: CourierPlace, account: pwd.struct_passwd) -> None:
    """What a SuperNode of another user left is neither taken over nor removed unasked.

    Raises:
        SiteError: there is such.
    """
    worker = place.socket.parent
    others_state = place.state.is_dir() and place.state.stat().st_uid not in {account.pw_uid, os.geteuid()}
    if others_state or (worker.exists() and worker.stat().st_gid != account.pw_gid):
        beside = place.state.parent
        raise SiteError(
            f"{beside}: expected the folder of a SuperNode of user {account.pw_name}, got that of another user's. End "
            f"that with `hipfed-client stop`, and remove the folder (rm -r {beside}); it is made again."
        )


def _make(folder: Path, *, mode: int, owner: pwd.struct_passwd | None) -> None:
    """Make a folder or take the one that is there, but no link: what is in the SuperNode's state it can exchange.

    Raises:
        SiteError: it is to be this user's own and is another's, who could exchange what is in it.
    """
    folder.mkdir(mode=mode, parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if owner is None and os.fstat(handle).st_uid != os.geteuid():
            raise SiteError(
                f"{folder}: expected a folder of this user, got another user's. Remove it (rm -r {folder})."
            )
        os.fchmod(handle, mode)
        if owner is not None:
            os.fchown(handle, owner.pw_uid, owner.pw_gid)
    finally:
        os.close(handle)
