"""The SuperNode as a part: it faces the network, and hands the coordinator's questions to the worker."""

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from client.deployment.courier_place import CourierPlace
from client.home import HospitalSettings
from shared_model.identity.address import split_address
from shared_model.identity.coordinator_status import UnreachableError, fetch_status
from shared_model.identity.proxy_variables import without_proxies
from shared_model.process.ports import free_ports
from shared_model.process.supervised_process import Ending, Part

SLOW_S, SESSION_S = 60.0, 15.0
PROBE_S = 15.0
DOUBT = timedelta(seconds=5)
MOST_AHEAD_S, MOST_BEHIND_S = 5, 300  # what Flower tolerates of a SuperNode's clock

# Flower's words where it drops a question or an answer for good, such as at a broken connection (flwr 1.41). It says
# nothing to the coordinator, which would wait for its deadline; when a SuperNode starts anew, it asks again.
# It also ignores a message that comes just as its run ends; then it may keep the next run's answers (seen once).
_DROPPED = re.compile(r"Failed to (receive|send) message|is not in `RUNNING` status. Ignoring (message)")
_SENT = "Sent successfully"
_LOST = "A question may have been lost with a connection that broke"  # our own words, see supernode.py
_SUPERNODE = (Path(__file__).parents[1] / "flower" / "supernode.py").read_text(encoding="utf-8")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ENVIRONMENT = {
    "PYTHONNOUSERSITE": "1",  # HOME is the SuperNode's own
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",  # s; by default a message waits up to 1 s for its courier's start
}


class CourierPart(Part):
    """Flower's SuperNode, which reconnects by itself once it was connected, and is started again until it is.

    Args:
        settings: the hospital's.
        place: the SuperNode's files.
        node_config: what the courier needs to know, such as the worker's socket.
        separate: turns a command into one that cannot reach the data.
    """

    ready_timeout_s = None  # a hospital waits for its coordinator for ever

    def __init__(
        self,
        settings: HospitalSettings,
        place: CourierPlace,
        *,
        node_config: Mapping[str, str],
        separate: Callable[[Sequence[str], int], Sequence[str]],
    ) -> None:
        self._settings, self._place = settings, place
        self._node_config, self._separate = node_config, separate
        super().__init__("supernode", folder=place.state, environment=_environment(place))
        self.connected_since: datetime | None = None
        self.last_question: tuple[str, datetime] | None = None
        self.unanswered = False  # the last question, as far as the SuperNode has said
        self._doubt_since: datetime | None = None
        self._unreachable = self._dropped = ""
        threading.Thread(target=self._keep_probing, daemon=True).start()

    def command(self) -> Sequence[str]:
        """Flower's command, separated."""
        (port,) = free_ports(1)
        config = " ".join(f"{key}={json.dumps(value)}" for key, value in self._node_config.items())
        command = [
            *(sys.executable, "-P", "-s", "-u", "-c", _SUPERNODE),
            "--root-certificates",
            str(self._place.authority),
            "--superlink",
            self._settings.server,
            "--auth-supernode-private-key",
            str(self._place.node_key),
            "--node-config",
            config,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            *("--isolation", "process"),  # the program starts the couriers itself
        ]
        return self._separate(command, port)

    def is_ready(self) -> bool:
        """True if the coordinator took it in."""
        return self.connected_since is not None

    def trouble(self) -> str:
        """Why the coordinator does not answer, once that has lasted."""
        return self._unreachable

    def must_restart(self) -> str:
        """The coordinator puts a question again once the SuperNode that dropped it is gone."""
        return self._dropped

    def forget(self) -> None:
        """A new SuperNode is not connected, and has dropped nothing."""
        super().forget()
        self._dropped, self.unanswered = "", False
        self.connected_since, self._doubt_since, self._unreachable = None, None, ""

    def observe(self, line: str) -> None:
        """Learn from what the SuperNode says whether it is connected, and what it was asked."""
        line = _COLOUR.sub("", line)
        super().observe(line)
        now = datetime.now(UTC)
        if _LOST in line:
            self._dropped = "a question may have been lost with a connection that broke; the coordinator asks again"
        elif "SuperNode ID: " in line:
            self.connected_since = now
        elif "Connection attempt failed" in line:
            self._doubt_since = self._doubt_since or now
        elif "Connection successful" in line:
            self._believe()
        elif dropped := _DROPPED.search(line):
            what = "an answer" if dropped.group(1) == "send" else "a question"
            self._dropped = f"{what} was lost on the way; the coordinator asks again"
        elif question := re.search(r"Receiving: (\S+) message", line):
            self.last_question, self.unanswered = (question.group(1), now), True
            self._believe()
        elif _SENT in line:
            self.unanswered = False

    def explain(self, status: int) -> Ending:
        """Plain words for the ways in which a coordinator refuses, with the patience that each asks for."""
        said = "\n".join(self._last_lines)
        server = self._settings.server
        if "CERTIFICATE_VERIFY_FAILED" in said:
            return Ending(
                f"{server} shows a certificate that ca.crt did not sign: a wrong ca.crt, a wrong address, or a proxy "
                "that opens TLS. Compare ca.crt's fingerprint with the coordinator. Trying again, slowly",
                min_wait_s=SLOW_S,
            )
        if "[code: 2004]" in said:  # Flower's FLEET_NODE_ACTIVATION_FAILED
            return Ending(
                f"{server} still holds this hospital's former session, which ends within a minute, or has not taken "
                "up its key yet. Trying again",
                min_wait_s=SESSION_S,
            )
        if status == 0:  # a SuperNode ends so when it is told 401
            return Ending(self._explain_refusal(), min_wait_s=SLOW_S)
        return super().explain(status)

    def _explain_refusal(self) -> str:
        server = self._settings.server
        try:
            skew = self._ask_coordinator()
        except UnreachableError as error:
            return f"{server} refused this hospital's key. Now: {error}"
        ahead_s = -skew.total_seconds()
        if ahead_s >= MOST_AHEAD_S or -ahead_s >= MOST_BEHIND_S:
            return (
                f"{server}: expected a clock at most {MOST_AHEAD_S} s ahead of the coordinator's and "
                f"{MOST_BEHIND_S} s behind it, got one {abs(ahead_s):.0f} s "
                f"{'ahead' if ahead_s > 0 else 'behind'}. Set this machine's clock. Trying again, slowly"
            )
        return (
            f"{server} refused this hospital's key: it is not enrolled yet, or was revoked; or the SuperNode was ended "
            "by hand. Ask the coordinator. Trying again, slowly"
        )

    def _ask_coordinator(self) -> timedelta:
        """How far the coordinator's clock is ahead of this one.

        Raises:
            UnreachableError: it does not answer as itself.
        """
        host, port = split_address(self._settings.server)
        status = fetch_status(host, port, self._place.authority)
        return status.time - datetime.now(UTC)

    def _believe(self) -> None:
        self._doubt_since, self._unreachable = None, ""

    def _keep_probing(self) -> None:
        """While the SuperNode says that it fails to connect, find out whether the coordinator answers.

        The programs that the SuperNode starts say the same of their own connections: its words alone are no proof.
        """
        while True:
            time.sleep(1.0)
            doubt = self._doubt_since
            if doubt is None or datetime.now(UTC) - doubt < DOUBT:
                continue
            try:
                self._ask_coordinator()
            except UnreachableError as error:
                if self._doubt_since is not None:
                    what = "no connection since" if self.connected_since is None else "connection lost at"
                    self._unreachable = f"{what} {doubt:%H:%M} UTC: {error} Trying again"
                time.sleep(PROBE_S)
            else:
                self._believe()


def _environment(place: CourierPlace) -> dict[str, str]:
    """The user's, without what it says of Flower and of proxies: the way to the coordinator is direct."""
    inherited = without_proxies(os.environ).items()
    kept = {name: value for name, value in inherited if not name.startswith(("FLWR_", "HIPFED_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    ours = {
        "FLWR_HOME": str(place.flower),
        "HOME": str(place.state),
        "TMPDIR": str(place.temporary),
        "PATH": path,
    }
    return {**kept, **_ENVIRONMENT, **ours}
