"""Handshakes with the client context that Flower builds from a root certificate."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.enrolment.authority import issue_server_certificate, make_authority
from tests.waiting import PATIENCE_S

NOW = datetime.now(UTC)
HOSTS = ("fed.example.org", "10.1.2.3")


@contextmanager
def serve(tls: Path) -> Iterator[int]:
    """A TLS server on loopback that greets whoever trusts it; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "server.crt", tls / "server.key")

    def greet(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client refused, or the listener is closed
            connection, _ = listener.accept()
            connection.settimeout(PATIENCE_S)
            with connection, context.wrap_socket(connection, server_side=True) as secure:
                secure.sendall(b"hello")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        thread = threading.Thread(target=greet, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def connect(port: int, authority: Path, *, host: str, strict: bool = False) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=(authority / "ca.crt").read_text())
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    with (
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection,
        context.wrap_socket(connection, server_hostname=host) as secure,
    ):
        return secure.recv(5)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coordinator that was provisioned 400 days ago, whose first certificate has expired."""
    folder = tmp_path_factory.mktemp("coordinator")
    former = NOW - timedelta(days=400)
    authority = make_authority(folder / "ca", organisation="North trust", now=former)
    issue_server_certificate(folder / "expired", authority, HOSTS, now=former, days=399)
    issue_server_certificate(folder / "tls", authority, HOSTS, now=NOW)
    issue_server_certificate(folder / "future", authority, HOSTS, now=NOW + timedelta(days=2))
    make_authority(folder / "other-ca", organisation="North trust", now=former)
    return folder


@pytest.mark.parametrize("host", ["fed.example.org", "10.1.2.3", "localhost", "127.0.0.1"])
@pytest.mark.parametrize("strict", [False, True])
def test_server_is_trusted_under_each_of_its_names(home: Path, host: str, *, strict: bool) -> None:
    with serve(home / "tls") as port:
        assert connect(port, home / "ca", host=host, strict=strict) == b"hello"


def test_server_is_trusted_by_the_same_authority_after_a_renewal(home: Path) -> None:
    with serve(home / "tls") as port:
        assert connect(port, home / "ca", host="localhost") == b"hello"
    with serve(home / "expired") as port, pytest.raises(ssl.SSLCertVerificationError):
        connect(port, home / "ca", host="localhost")


@pytest.mark.parametrize(
    ("tls", "authority", "host", "said"),
    [
        ("tls", "other-ca", "fed.example.org", "certificate signature failure|unable to get local issuer"),
        ("expired", "ca", "fed.example.org", "certificate has expired"),
        ("future", "ca", "fed.example.org", "certificate is not yet valid"),
        ("tls", "ca", "evil.example.org", "Hostname mismatch"),
        ("tls", "ca", "10.1.2.4", "IP address mismatch"),
    ],
    ids=["wrong-authority", "expired", "not-yet", "wrong-name", "wrong-address"],
)
def test_server_is_refused(home: Path, tls: str, authority: str, host: str, said: str) -> None:
    with serve(home / tls) as port, pytest.raises(ssl.SSLCertVerificationError, match=said):
        connect(port, home / authority, host=host)
