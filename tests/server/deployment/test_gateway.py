"""The only public listener: what passes, and that nothing else does."""

import logging
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import Message as QuestionMessage
from flwr.proto.message_pb2 import Metadata

from server.deployment.gateway import Gateway
from server.deployment.gateway_process import FirstRequestInTime, find_active
from server.enrolment.coordinator_home import CoordinatorHome
from shared_model.protocol.messages import PROTOCOL_VERSION
from tests.server.coordinator_home import enrol, make_home, make_node_key, revoke
from tests.server.running_gateway import (
    FakeSuperLink,
    raw_request,
    read_body,
    serve_gateway,
    serve_superlink,
    serving,
    signed_headers,
    speak,
    status_of,
)
from tests.waiting import PATIENCE_S, wait_until

FLEET = "/v1/fleet/pull-messages"
MIB = 2**20


@dataclass
class Site:
    """A running gateway, what is behind it, and an enrolled hospital's key."""

    home: CoordinatorHome
    key: ec.EllipticCurvePrivateKey
    superlink: FakeSuperLink = field(default_factory=FakeSuperLink)
    seen: list[tuple[str, str, str]] = field(default_factory=list)

    def ask(self, target: str, *, headers: dict[str, str] | None = None, method: str = "POST") -> bytes:
        signed = signed_headers(self.key) if headers is None else headers
        return speak(self.home, raw_request(target, signed, method=method))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    home = make_home(tmp_path / "home")
    site = Site(home, enrol(home.folder, "north"))
    registry = home.open_registry()
    gateway = Gateway(
        home.settings.superlink,
        ca=home.ca,
        find_hospital=lambda key: find_active(registry, key),
        seen=lambda *seen: site.seen.append(seen),
        max_body_bytes=80 * MIB,
        gap_s=1.0,
    )
    with registry, serving(serve_superlink(home, site.superlink)), serving(serve_gateway(home, gateway)):
        yield site


def test_client_that_speaks_tls_1_2_only_is_refused(site: Site) -> None:
    context = ssl.create_default_context(cafile=str(site.home.ca))
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    with (
        socket.create_connection(("127.0.0.1", site.home.settings.port), timeout=PATIENCE_S) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


def test_kind_of_a_question_is_told_with_the_hospital_that_got_it(site: Site) -> None:
    question = PullMessagesResponse(messages_list=[QuestionMessage(metadata=Metadata(message_type="query.explain"))])
    site.superlink.answer = question.SerializeToString()

    answer = site.ask(FLEET)

    assert answer.endswith(b"\r\n" + question.SerializeToString() + b"\r\n0\r\n\r\n")
    assert site.seen == [("north", FLEET, "query.explain")]


def test_request_of_an_enrolled_hospital_passes_with_its_headers_and_body(site: Site) -> None:
    answer = site.ask(FLEET)

    assert status_of(answer) == 200
    assert answer.endswith(b"\r\n\r\n1\r\n1\r\n0\r\n\r\n")  # one byte arrived, says a chunk of one character
    assert b"x-of-flower: kept" in answer
    ((path, headers),) = site.superlink.requests
    assert path == FLEET
    assert headers[b"flwr-public-key"].decode() == signed_headers(site.key)["flwr-public-key"]
    assert headers[b"x-forwarded-for"] == b"127.0.0.1"
    assert site.seen == [("north", FLEET, "")]


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/health",
        "/docs",
        "/openapi.json",
        "/v1/control/list-runs",
        "/v1/runtime/push-messages",
        "/v1/fleet",
        "/v1/fleet/",
        "/v1/fleet//pull-messages",
        "//v1/fleet/pull-messages",
        "//v1/control/list-runs",
        "/v1/fleet/../control/list-runs",
        "/v1/fleet/..%2fcontrol/list-runs",
        "/v1/fleet/%2e%2e/control/list-runs",
        "/v1/fleet/pull-messages/../../control/list-runs",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/pull-messages?x=1",
        "/v1/fleet/pull-messages;x",
        "/v1/fleet/pull%2dmessages",
        "/V1/fleet/pull-messages",
        "/v1\\fleet\\pull-messages",
        "https://127.0.0.1/v1/fleet/pull-messages",
        "https://127.0.0.1/v1/control/list-runs",
        "/hipfed/v1/status",
        "*",
    ],
)
def test_every_other_path_is_refused_without_a_word(site: Site, target: str) -> None:
    answer = site.ask(target)

    assert status_of(answer) == 404
    assert answer.endswith(b"\r\n\r\n")
    assert b"connection: close" in answer.lower()
    assert site.superlink.requests == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "CONNECT", "HEAD"])
def test_every_other_method_is_refused(site: Site, method: str) -> None:
    assert status_of(site.ask(FLEET, method=method)) == 404
    assert site.superlink.requests == []


def test_unknown_key_is_refused(site: Site, tmp_path: Path) -> None:
    stranger = make_node_key(tmp_path / "stranger")

    answer = site.ask(FLEET, headers=signed_headers(stranger))

    assert status_of(answer) == 401
    assert answer.endswith(b"\r\n\r\n")
    assert site.superlink.requests == []


def test_revoked_key_is_refused_from_the_next_request_on(site: Site) -> None:
    assert status_of(site.ask(FLEET)) == 200

    revoke(site.home.folder, "north")

    assert status_of(site.ask(FLEET)) == 401
    assert len(site.superlink.requests) == 1


def test_key_without_its_signature_is_refused(site: Site, tmp_path: Path) -> None:
    """A public key is no secret: whoever has read one must not reach the SuperLink with it."""
    mine, theirs = signed_headers(make_node_key(tmp_path / "stranger")), signed_headers(site.key)

    for headers in (
        {},
        {"flwr-public-key": theirs["flwr-public-key"]},
        {**mine, "flwr-public-key": theirs["flwr-public-key"]},
        {**theirs, "flwr-timestamp": "2026-01-01T00:00:00+00:00"},
        {**theirs, "flwr-signature": "no base64"},
        {**theirs, "flwr-public-key": "bm8ga2V5"},
    ):
        assert status_of(site.ask(FLEET, headers=headers)) == 401
    assert site.superlink.requests == []


@pytest.mark.parametrize("name", ["flwr-public-key", "flwr-signature", "flwr-timestamp"])
def test_header_that_comes_twice_is_refused(site: Site, name: str) -> None:
    headers = signed_headers(site.key)
    twice = raw_request(FLEET, headers).replace(b"\r\n\r\n", f"\r\n{name}: other\r\n\r\n".encode(), 1)

    assert status_of(speak(site.home, twice)) == 400
    assert site.superlink.requests == []


def test_body_of_unknown_length_is_refused(site: Site) -> None:
    headers = {**signed_headers(site.key), "Transfer-Encoding": "chunked"}
    request = raw_request(FLEET, headers, body=b"").replace(b"Content-Length: 0\r\n", b"") + b"1\r\nx\r\n0\r\n\r\n"
    both = raw_request(FLEET, headers, body=b"1\r\nx\r\n0\r\n\r\n")

    assert status_of(speak(site.home, request)) == 411
    assert status_of(speak(site.home, both)) in {400, 411}
    assert site.superlink.requests == []


def test_body_above_the_limit_is_refused_before_it_is_sent(site: Site) -> None:
    request = raw_request(FLEET, signed_headers(site.key)).replace(b"Content-Length: 1", b"Content-Length: 90000000")

    assert status_of(speak(site.home, request)) == 413
    assert site.superlink.requests == []


def test_plain_http_gets_no_answer(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.home.settings.port), timeout=PATIENCE_S) as plain:
        plain.sendall(raw_request(FLEET, signed_headers(site.key)))
        try:
            answer = plain.recv(1000)
        except ConnectionResetError:
            answer = b""

    assert not answer.startswith(b"HTTP")
    assert site.superlink.requests == []


def test_certificate_is_of_our_authority(site: Site) -> None:
    context = ssl.create_default_context()
    with (
        socket.create_connection(("127.0.0.1", site.home.settings.port), timeout=PATIENCE_S) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_status_tells_versions_and_the_time_to_everybody(site: Site) -> None:
    answer = site.ask("/hipfed/v1/status", headers={}, method="GET")

    assert status_of(answer) == 200
    content = read_body(answer)
    assert content["protocol"] == PROTOCOL_VERSION
    assert set(content) == {"hipfed", "protocol", "time"}
    assert content["time"].endswith("+00:00")


def test_client_that_stops_within_a_body_is_cut_off(site: Site) -> None:
    request = raw_request(FLEET, signed_headers(site.key)).replace(b"Content-Length: 1", b"Content-Length: 100")

    assert status_of(speak(site.home, request)) == 408


def test_client_that_does_not_take_its_answer_is_cut_off(site: Site) -> None:
    context = ssl.create_default_context(cafile=str(site.home.ca))
    request = raw_request("/v1/fleet/large", signed_headers(site.key), body=str(70 * MIB).encode())
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(PATIENCE_S)
        plain.connect(("127.0.0.1", site.home.settings.port))
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            connection.sendall(request)
            time.sleep(3)
            n_bytes = 0
            with pytest.raises((ConnectionResetError, ssl.SSLError, TimeoutError, EOFError)):  # noqa: PT012
                while piece := connection.recv(65536):
                    n_bytes += len(piece)
                raise EOFError

    assert n_bytes < 70 * MIB


def test_connection_that_says_nothing_is_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FirstRequestInTime, "header_s", 0.5)

    assert speak(site.home, b"POST /v1/fl") == b""


def test_superlink_that_is_away_is_told_as_such(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    key = enrol(home.folder, "north")
    gateway = Gateway(home.settings.superlink, ca=home.ca, find_hospital=lambda _: "north", seen=lambda *_: None)
    with serving(serve_gateway(home, gateway)):
        answer = speak(home, raw_request(FLEET, signed_headers(key)))

    assert status_of(answer) == 503  # a SuperNode tries again


def test_registry_that_cannot_be_asked_lets_nobody_in(site: Site) -> None:
    (site.home.folder / "registry.db").write_bytes(b"not a database, but long enough to look like one" * 100)

    assert status_of(site.ask(FLEET)) == 503
    assert site.superlink.requests == []


def test_log_tells_who_asked_for_what_and_no_content(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="hipfed.gateway")

    site.ask("/v1/fleet/push-messages")
    site.ask("/v1/control/stop-run", headers={})
    site.ask(FLEET)

    lines = [record.getMessage() for record in caplog.records if record.name == "hipfed.gateway"]
    assert len(lines) == 2  # an idle hospital's polling is not told
    assert lines[0].startswith("127.0.0.1 north /v1/fleet/push-messages 200 in=1 out=1 0.")
    assert lines[1].startswith("127.0.0.1 - /v1/control/stop-run 404 in=0 out=0 0.")


@contextmanager
def _gateway_process(home: CoordinatorHome) -> Iterator[int]:
    """A gateway whose memory can be seen; yields its process id."""
    home.processes.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "server.deployment.gateway_process", home.folder],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_large_bodies_pass_with_flat_memory(tmp_path: Path, direction: str) -> None:
    home = make_home(tmp_path / "home")
    key, superlink = enrol(home.folder, "north"), FakeSuperLink()
    base = f"https://127.0.0.1:{home.settings.port}"
    context = ssl.create_default_context(cafile=str(home.ca))
    with (
        serving(serve_superlink(home, superlink)),
        _gateway_process(home) as pid,
        httpx.Client(verify=context, trust_env=False, timeout=PATIENCE_S) as client,
    ):
        wait_until(lambda: _answers(client, f"{base}/hipfed/v1/status"))
        client.post(f"{base}{FLEET}", headers=signed_headers(key), content=b"x")
        before = _peak_bytes(pid)

        if direction == "up":
            answer = client.post(f"{base}{FLEET}", headers=signed_headers(key), content=bytes(64 * MIB))
            n_bytes = int(answer.text)
        else:
            large = str(64 * MIB).encode()
            n_bytes = len(client.post(f"{base}/v1/fleet/large", headers=signed_headers(key), content=large).content)

        assert n_bytes == 64 * MIB
        assert _peak_bytes(pid) - before < 16 * MIB


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        client.get(url)
    except httpx.HTTPError:
        return False
    return True


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
