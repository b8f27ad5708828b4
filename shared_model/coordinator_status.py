"""What the coordinator's gateway says of itself, and why it does not, in plain words."""

from __future__ import annotations

import http.client
import json
import ssl
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from shared_model.errors import HipfedError

STATUS_PATH = "/hipfed/v1/status"
_MAX_BYTES = 10_000


class UnreachableError(HipfedError):
    """The coordinator does not answer as itself; the text says why."""


@dataclass(frozen=True)
class CoordinatorStatus:
    """The gateway's answer.

    Attributes:
        hipfed: its version.
        protocol: version of the protocol.
        time: its clock, UTC.
    """

    hipfed: str
    protocol: int
    time: datetime


def fetch_status(host: str, port: int, ca: Path, *, timeout_s: float = 5.0, named: bool = True) -> CoordinatorStatus:
    """Ask the gateway.

    Args:
        host: where it is.
        port: where it listens.
        ca: the coordinator's CA certificate.
        timeout_s: of each step, in seconds.
        named: whether its certificate must be of that host; not where the coordinator asks itself.

    Raises:
        UnreachableError: no answer, not its certificate, or another program's answer.
    """
    where = f"{host}:{port}"
    try:
        context = ssl.create_default_context(cafile=str(ca))
        context.check_hostname = named
        connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
        with closing(connection):
            connection.request("GET", STATUS_PATH)
            response = connection.getresponse()
            body = response.read(_MAX_BYTES)
        content = json.loads(body) if response.status == http.client.OK else {}
        return CoordinatorStatus(
            str(content["hipfed"]), int(content["protocol"]), datetime.fromisoformat(content["time"])
        )
    except ssl.SSLCertVerificationError as error:
        raise UnreachableError(
            f"{where}: expected a certificate of our coordinator, got another ({error.verify_message}). "
            "Compare ca.crt's fingerprint with the coordinator; a proxy that opens TLS looks like this too."
        ) from error
    except FileNotFoundError as error:
        raise UnreachableError(f"{ca}: expected the coordinator's CA certificate, got none. Ask for it.") from error
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(
            f"{where}: expected the coordinator to answer, got: {error or type(error).__name__}. "
            "Is it running, and does a firewall let this machine through?"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UnreachableError(
            f"{where}: expected a hipfed coordinator, got another program's answer. Check the address."
        ) from error
