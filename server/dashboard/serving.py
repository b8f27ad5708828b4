"""The dashboard's listener: loopback in the clear, another address by TLS and a token, a token by TLS only."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from server.dashboard.access import Sessions, make_token, read_token
from server.dashboard.app import Dashboard
from server.dashboard.folder import open_runs
from server.dashboard.guard import Access, name_hosts
from server.dashboard.reading import RunReader
from server.enrolment.authority import ALWAYS
from server.enrolment.coordinator_home import CoordinatorHome
from shared_model.errors import SettingsError
from shared_model.identity.key_files import refuse_open_to_others
from shared_model.pages.serving import listen, serve_until_ctrl_c

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
    listener = listen(place.port, address=place.address)
    port = int(listener.getsockname()[1])
    sessions = Sessions(token) if token else None
    access = Access(hosts=name_hosts(names, port, is_tls=home is not None), is_tls=home is not None, sessions=sessions)
    dashboard = Dashboard(RunReader(root), access=access)
    host = f"[{place.address}]" if ":" in place.address else place.address
    say(f"dashboard of {root}: {'https' if home else 'http'}://{host}:{port}/  (Ctrl-C ends it)")
    if token and place.token_file is None:
        say(f"token, shown only now: {token}")
    tls = {"ssl_certfile": home.tls / "server.crt", "ssl_keyfile": home.tls / "server.key"} if home else {}
    with listener:
        serve_until_ctrl_c(
            dashboard.app,
            listener,
            on_exit=dashboard.watcher.close,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=_END_S,
            **tls,
        )
    say("ended")
