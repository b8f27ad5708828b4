"""The dashboard's listener: loopback in the clear, another address by TLS and a token, a token by TLS only."""

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from server.dashboard.access import Sessions, make_token, read_token
from server.dashboard.app import Dashboard
from server.dashboard.folder import open_runs
from server.dashboard.guard import LONGEST_HEAD, Access, name_hosts
from server.dashboard.reading import RunReader
from server.enrolment.authority import ALWAYS
from server.enrolment.coordinator_home import CoordinatorHome
from shared_model.errors import SettingsError
from shared_model.identity.key_files import refuse_open_to_others

MOST_CONNECTIONS = 1000
_END_S = 3


@dataclass(frozen=True)
class ListenAddress:
    """Where the dashboard is served.

    Attributes:
        address: IP address of the interface.
        port: 0 for any that is free.
        home: of the coordinator whose certificate is used; None for none.
        token_file: of the token; None for a new one where one is needed.
    """

    address: str
    port: int
    home: Path | None = None
    token_file: Path | None = None

    @property
    def is_loopback(self) -> bool:
        """True if only this machine reaches it.

        Raises:
            SettingsError: it is no IP address.
        """
        try:
            return ipaddress.ip_address(self.address).is_loopback
        except ValueError as error:
            raise SettingsError(f"--address: expected an IP address of this machine, got {self.address!r}.") from error


class _Server(uvicorn.Server):
    """Ends open streams when it is told to end."""

    def __init__(self, config: uvicorn.Config, close: Callable[[], None]) -> None:
        super().__init__(config)
        self._close = close

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On Ctrl-C and SIGTERM."""
        super().handle_exit(sig, frame)
        self._close()


def serve(runs: Path, place: ListenAddress, *, say: Callable[[str], None]) -> None:
    """Serve a folder of runs until Ctrl-C or SIGTERM.

    Args:
        runs: the folder.
        place: where.
        say: shows the user a line.

    Raises:
        SettingsError: RUNS is no folder of runs, or the address or token cannot be served safely or at all.
        KeyFileError: the token's file or the certificate's key is missing, or open to others.
    """
    root, is_local = open_runs(runs), place.is_loopback
    if not is_local and place.home is None:
        raise SettingsError(
            f"--address {place.address}: expected --home with a provisioned certificate, got none. Others than this "
            "machine reach the dashboard by TLS only: name the coordinator's folder, or serve 127.0.0.1."
        )
    if place.token_file and place.home is None:
        raise SettingsError(
            "--token-file: expected --home with a provisioned certificate, got none. Without TLS a browser sends the "
            "session of a token to servers of others on other ports of this machine."
        )
    home = CoordinatorHome(place.home.absolute()) if place.home else None
    names = [*ALWAYS, place.address, *(home.read_settings().hosts if home else ())]
    if home is not None:
        refuse_open_to_others(home.tls / "server.key")
    token = read_token(place.token_file) if place.token_file else None if is_local else make_token()
    listener = _listen(place)
    port = int(listener.getsockname()[1])
    sessions = Sessions(token) if token else None
    access = Access(hosts=name_hosts(names, port, is_tls=home is not None), is_tls=home is not None, sessions=sessions)
    dashboard = Dashboard(RunReader(root), access=access)
    host = f"[{place.address}]" if ":" in place.address else place.address
    say(f"dashboard of {root}: {'https' if home else 'http'}://{host}:{port}/  (Ctrl-C ends it)")
    if token and place.token_file is None:
        say(f"token, shown only now: {token}")
    server = _Server(_configure(dashboard, home), dashboard.watcher.close)
    try:
        server.run([listener])
    except KeyboardInterrupt:  # uvicorn has ended and passes the signal on
        say("ended")
    finally:
        listener.close()


def _configure(dashboard: Dashboard, home: CoordinatorHome | None) -> uvicorn.Config:
    return uvicorn.Config(
        dashboard.app,
        http="h11",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=2 * LONGEST_HEAD,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=_END_S,
        ssl_certfile=None if home is None else home.tls / "server.crt",
        ssl_keyfile=None if home is None else home.tls / "server.key",
    )


def _listen(place: ListenAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in place.address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((place.address, place.port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"--address {place.address} --port {place.port}: expected an address and port that are free here, got: "
            f"{error.strerror}. Choose another with --port."
        ) from error
    return listener
