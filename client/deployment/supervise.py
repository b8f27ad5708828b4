"""The hospital as a service: the worker, which owns the data, and the SuperNode, which faces the network.

`python -P -m client.deployment.supervise --home DIR` keeps both running in the foreground. It imports neither torch nor
data.
"""

import argparse
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from client.deployment.courier_place import courier_place, prepare_courier
from client.deployment.courier_process import CourierPart
from client.deployment.landlock import ABI_NET, Allowed, landlock_abi
from client.deployment.separation import Separation, system_devices, system_paths
from client.home import HospitalHome, HospitalSettings
from client.worker.data_news import hear_fault
from shared_model.errors import HipfedError, SiteError
from shared_model.identity.address import split_address
from shared_model.process.supervised_process import Part
from shared_model.process.supervision import describe_unanswered
from shared_model.process.supervisor import Supervisor

Separate = Callable[[Sequence[str], int], Sequence[str]]

_DNS = 53  # over TCP, where an answer is too long for UDP


def processes_of(home: HospitalHome) -> Path:
    """Folder of logs and status."""
    return home.folder / "processes"


class WorkerPart(Part):
    """The worker: a process of its own, warm, which answers at a Unix socket."""

    ready_timeout_s = None  # it decodes the hospital's images first, and begins anew where it is ended within

    def __init__(
        self, home: HospitalHome, settings: HospitalSettings, *, socket: Path, courier_user: str | None
    ) -> None:
        self._settings, self._socket, self._approvals = settings, socket, home.folder / "approvals.json"
        self._courier_user = courier_user
        self._data_fault = ""
        super().__init__("worker", folder=home.folder, environment=os.environ)

    def command(self) -> Sequence[str]:
        """The hospital's own command."""
        settings = self._settings
        return [
            str(Path(sys.executable).with_name("hipfed-client")),
            "worker",
            "--name",
            settings.name,
            "--data",
            settings.data,
            "--cache",
            settings.cache,
            "--socket",
            str(self._socket),
            "--approvals",
            str(self._approvals),
            *(("--courier-user", self._courier_user) if self._courier_user else ()),
        ]

    def forget(self) -> None:
        """A new worker reads the data anew."""
        super().forget()
        self._data_fault = ""

    def observe(self, line: str) -> None:
        """Learn from what the worker says whether it can use the data."""
        super().observe(line)
        self._data_fault = hear_fault(line, before=self._data_fault)

    def trouble(self) -> str:
        """What is wrong with the data."""
        if not self._data_fault:
            return ""
        return f"the worker refuses all studies: {self._data_fault}. See: hipfed-client check {self._settings.data}"

    def is_ready(self) -> bool:
        """True if the socket accepts."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(self._socket))
            except OSError:
                return False
            return True


def separation(
    home: HospitalHome, settings: HospitalSettings, *, courier_user: str | None, without_separation: bool
) -> Separate:
    """How the SuperNode is kept from the data.

    Args:
        home: the hospital's.
        settings: the hospital's.
        courier_user: account to run it as; needs root.
        without_separation: run it with all rights of this user.

    Returns:
        Turns the SuperNode's command, and the port that it listens on, into the command to start.

    Raises:
        SiteError: it cannot be kept from them.
    """
    if without_separation:
        return lambda command, _port: command
    if courier_user is None and not landlock_abi():
        raise SiteError(
            "separation: expected a way to keep a SuperNode of this user from the data, got none: this kernel has no "
            "Landlock (Linux 5.13). Start as root with --courier-user; or say --without-separation if the SuperNode, "
            "and what the coordinator sends to it, may read them."
        )
    place, (_, server_port) = courier_place(home, courier_user=courier_user), split_address(settings.server)
    limits_ports = landlock_abi() >= ABI_NET

    def separate(command: Sequence[str], port: int) -> Sequence[str]:
        allowed = Allowed(
            read=(*system_paths(), place.authority, place.node_key),
            write=(*system_devices(), place.state),  # not the socket's folder: it must not take the worker's place
            connect=(server_port, port, _DNS) if limits_ports else None,
            bind=(port,) if limits_ports else (),
        )
        hidden = (Path(settings.data), Path(settings.cache), home.folder, home.signing_key)
        return Separation(allowed, hidden=hidden, user=courier_user).command(command)

    return separate


def supervise(home: HospitalHome, *, separate: Separate, courier_user: str | None = None) -> Supervisor:
    """The supervisor of a hospital; `run` keeps it going.

    Args:
        home: the hospital's.
        separate: as `separation` gives it.
        courier_user: account of the SuperNode, where that is not this one.

    Raises:
        SettingsError: hospital.toml is missing or wrong.
        SiteError: the SuperNode's folders cannot be made.
        KeyFileError: the node's key is missing, open to others or damaged.
    """
    settings = home.read_settings()
    place = prepare_courier(home, courier_user=courier_user)
    worker = WorkerPart(home, settings, socket=place.socket, courier_user=courier_user)
    courier = CourierPart(
        settings,
        place,
        node_config={"socket": str(place.socket), "hospital": settings.name},
        separate=separate,
    )
    supervisor = Supervisor(
        [worker, courier],
        folder=processes_of(home),
        describe=lambda: describe_site(settings.server, courier, states=supervisor.states()),
        say=_say,
    )
    return supervisor


def describe_site(server: str, courier: CourierPart, *, states: Mapping[str, str]) -> str:
    """In one line what the hospital is doing.

    Args:
        server: HOST:PORT of the coordinator.
        courier: what the SuperNode has said.
        states: of worker and supernode.
    """
    if courier.connected_since is None or states["supernode"] == "waiting":
        connection = f"not connected to {server}"
    elif courier.trouble():
        connection = f"reconnecting to {server}"
    else:
        connection = f"connected to {server} since {courier.connected_since:%Y-%m-%d %H:%M} UTC"
    if courier.last_question is None:
        question = "no question yet"
    elif courier.unanswered:
        question = describe_unanswered(*courier.last_question, datetime.now(UTC))
    else:
        kind, asked = courier.last_question
        question = f"last question: {kind}, {(datetime.now(UTC) - asked).total_seconds():.0f} s ago"
    return f"{connection}; worker {states['worker']}; {question}"


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the command's output


def main(words: Sequence[str]) -> None:
    """Keep a hospital running until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m client.deployment.supervise")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--courier-user")
    parser.add_argument("--without-separation", action="store_true")
    given = parser.parse_args(words)
    home = HospitalHome(given.home)
    separate = separation(
        home,
        home.read_settings(),
        courier_user=given.courier_user,
        without_separation=given.without_separation,
    )
    supervise(home, separate=separate, courier_user=given.courier_user).run()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except HipfedError as error:
        sys.exit(f"hipfed-client: {error}")
