"""The gateway as a process: `python -m server.deployment.gateway_process HOME`."""

import asyncio
import logging
import sys
import threading
import time
from pathlib import Path

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.deployment.gateway import Gateway
from server.deployment.seen import SeenHospitals
from server.enrolment.coordinator_home import CoordinatorHome
from server.enrolment.registry import Registry
from shared_model.identity.tls import modern

HEADER_S = 10.0  # for the first request of a connection; refused ones close it
IDLE_S = 75
MAX_CONNECTIONS = 512
_HEADER_BYTES = 16 * 1024


class FirstRequestInTime(H11Protocol):
    """Connections that send no request are closed: uvicorn itself lets them wait for ever."""

    header_s = HEADER_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self.loop.call_later(self.header_s, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None and self.conn.their_state is h11.IDLE:
            self.transport.abort()


def server_config(gateway: Gateway, home: CoordinatorHome) -> uvicorn.Config:
    """The listener's settings."""
    return uvicorn.Config(
        gateway,
        host=home.settings.listen,
        port=home.settings.port,
        loop="asyncio",
        http=FirstRequestInTime,
        ws="none",
        ssl_certfile=str(home.tls / "server.crt"),
        ssl_keyfile=str(home.tls / "server.key"),
        ssl_context_factory=lambda _config, make: modern(make()),
        limit_concurrency=MAX_CONNECTIONS,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=5,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_config=None,
    )


def main(path: Path) -> None:
    """Serve until told to stop."""
    handler = logging.StreamHandler(sys.stdout)
    formatter = logging.Formatter("%(asctime)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)
    home = CoordinatorHome(path)
    seen = SeenHospitals(home.seen)
    keeper = threading.Thread(target=seen.keep)
    with home.open_registry() as registry:
        keeper.start()
        try:
            gateway = Gateway(
                home.settings.superlink,
                ca=home.ca,
                find_hospital=lambda key: find_active(registry, key),
                seen=seen.note,
                is_ending=lambda: server.should_exit,
            )
            server = uvicorn.Server(server_config(gateway, home))
            server.run()
        finally:
            seen.end()
            keeper.join()


def find_active(registry: Registry, node_key_pem: bytes) -> str | None:
    """Name of the hospital that may take part with this key; None if there is none, or not any more.

    Raises:
        TamperedError: the registry was changed by hand.
    """
    hospital = registry.hospital_of_key(node_key_pem)
    return hospital.name if hospital is not None and hospital.is_active else None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
