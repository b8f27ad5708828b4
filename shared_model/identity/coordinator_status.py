"""The status that the coordinator's gateway tells, or the reason why it tells none, in plain words."""

import http.client
import json
import socket
import ssl
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from shared_model.errors import HipfedError
from shared_model.identity.tls import modern, trusting

STATUS_PATH = "/hipfed/v1/status"
REACHED = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared with, not bound to
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
        context = trusting(ca)
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


def fetch_certificate(host: str, port: int, *, timeout_s: float = 5.0) -> x509.Certificate:
    """The certificate that is served, whoever signed it: to be looked at, not to be trusted.

    Args:
        host: where it is.
        port: where it listens.
        timeout_s: of each step, in seconds.

    Raises:
        OSError: nothing there speaks TLS 1.3.
        ValueError: it shows none that can be read.
    """
    context = modern(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        closing(socket.create_connection((host, port), timeout=timeout_s)) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
