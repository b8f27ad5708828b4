"""The coordinator's two processes: the SuperLink on loopback, and the gateway before it.

`python -m server.deployment.services HOME` keeps both running in the foreground.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from server.enrolment.coordinator_home import CoordinatorHome
from server.flower.nodes import sync_nodes
from server.flower.submission import flower_environment, write_connection
from shared_model.errors import HipfedError, SettingsError
from shared_model.identity.coordinator_status import REACHED, UnreachableError, fetch_status
from shared_model.process.ports import is_listening, is_taken
from shared_model.process.supervised_process import Ending, Part
from shared_model.process.supervisor import Supervisor

_TAKEN_S = 30.0


def service_environment(home: CoordinatorHome) -> dict[str, str]:
    """Flower's environment without what the user's own says about Flower."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")}
    return flower_environment(home.flower, inherited=inherited)


class _ListeningPart(Part):
    """A part whose port may be taken."""

    port: int

    def explain(self, status: int) -> Ending:
        """As every part, with words for a port that is taken."""
        if any("address already in use" in line.lower() for line in self._last_lines):
            return Ending(
                f"{self.name}: expected port {self.port} to be free, got it taken by another program. "
                "End that one, or choose another port in coordinator.toml.",
                min_wait_s=_TAKEN_S,
            )
        return super().explain(status)


class SuperLinkPart(_ListeningPart):
    """Flower's SuperLink: TLS, node authentication, a database; reachable on this machine only."""

    def __init__(self, home: CoordinatorHome) -> None:
        self._home, self.port = home, home.settings.superlink_port
        super().__init__("superlink", folder=home.flower, environment=service_environment(home))

    def command(self) -> Sequence[str]:
        """Flower's own command, patient with its database."""
        home = self._home
        return [
            *(sys.executable, "-P", "-m", "server.flower.superlink"),
            "--ssl-ca-certfile",
            str(home.ca),
            "--ssl-certfile",
            str(home.tls / "server.crt"),
            "--ssl-keyfile",
            str(home.tls / "server.key"),
            "--enable-supernode-auth",
            "--disable-runtime-dependency-installation",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--database",
            str(home.database),
        ]

    def is_ready(self) -> bool:
        """True if it accepts connections."""
        return is_listening(self.port)

    def made_ready(self) -> str:
        """Bring Flower's list of nodes up to the registry."""
        home = self._home
        try:
            with home.open_registry() as registry:
                sync_nodes(registry, address=home.settings.superlink, certificate=home.read_authority_certificate())
        except HipfedError as error:
            return str(error)
        return ""


class GatewayPart(_ListeningPart):
    """The public listener."""

    def __init__(self, home: CoordinatorHome) -> None:
        self._home, self.port = home, home.settings.port
        super().__init__("gateway", folder=home.flower, environment=service_environment(home))

    def command(self) -> Sequence[str]:
        """This checkout's own module."""
        return [sys.executable, "-P", "-m", "server.deployment.gateway_process", str(self._home.folder)]

    def is_ready(self) -> bool:
        """True if it answers with its certificate."""
        listen = self._home.settings.listen
        try:
            fetch_status(REACHED.get(listen, listen), self.port, self._home.ca, named=False)
        except UnreachableError:
            return False
        return True


def prepare(home: CoordinatorHome) -> None:
    """Make the folders that the processes write to, and tell Flower's commands where the SuperLink is."""
    for folder in (home.database.parent, home.flower, home.processes):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_connection(home.flower, home.settings.superlink, root_certificates=home.ca)


def refuse_taken_ports(home: CoordinatorHome) -> None:
    """Both ports must be free before anything starts: another program's would be taken for the SuperLink's.

    Raises:
        SettingsError: one is taken.
    """
    settings = home.settings
    for host, port, key in (
        ("127.0.0.1", settings.superlink_port, "superlink_port"),
        (settings.listen, settings.port, "listen_port"),
    ):
        if is_taken(host, port):
            raise SettingsError(
                f"port {port} of this machine: expected it to be free, got it taken by another program. End that one "
                f"(`hipfed-server stop`, if it is what a killed coordinator left), or set another {key} in "
                f"{home.settings_file}."
            )


def main(path: Path) -> None:
    """Keep the coordinator running until told to stop."""
    home = CoordinatorHome(path)
    prepare(home)
    parts = [SuperLinkPart(home), GatewayPart(home)]
    supervisor = Supervisor(parts, folder=home.processes, describe=lambda: _describe(home, supervisor), say=_say)
    supervisor.run()


def _describe(home: CoordinatorHome, supervisor: Supervisor) -> str:
    states = "; ".join(f"{name} {state}" for name, state in supervisor.states().items())
    return f"coordinator at {home.settings.address}: {states}"


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the command's output


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except HipfedError as error:
        sys.exit(f"hipfed-server: {error}")
