import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from client.doctor import network
from client.doctor.finding import CheckResult
from client.doctor.network import check_network, check_port, check_proxy
from shared_model.protocol.messages import PROTOCOL_VERSION
from shared_model.version import own_version
from tests.client.doctor.coordinator_double import serve_status, status_of

HOST = "127.0.0.1"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def _look(coordinator: Path, *, tls: str | None = "tls", **changes: Any) -> dict[str, CheckResult]:
    folder = coordinator / tls if tls else None
    with serve_status(status_of(**changes), folder) as port:
        findings = check_network(HOST, port, coordinator / "ca" / "ca.crt", now=datetime.now(UTC))
    return {finding.subject: finding for finding in findings}


def _grades(findings: dict[str, CheckResult]) -> dict[str, str]:
    return {subject: finding.grade for subject, finding in findings.items()}


def test_way_to_a_coordinator_of_the_same_version_is_fine(coordinator: Path) -> None:
    expected = dict.fromkeys(("proxy", "name", "port", "TLS", "coordinator", "clock", "versions"), "fine")
    assert _grades(_look(coordinator)) == expected


def test_intercepting_proxy_is_named_by_its_issuer(coordinator: Path) -> None:
    found = _look(coordinator, tls="other-tls")
    assert found["TLS"].grade == "fault"
    assert "Security appliance" in found["TLS"].detail
    assert "security appliance" in found["TLS"].remedy
    assert [found[name].grade for name in ("coordinator", "clock", "versions")] == ["unchecked"] * 3


@pytest.mark.parametrize(
    ("tls", "detail"), [("expired", "certificate expired on"), (None, "no TLS 1.3 at")], ids=["expired", "plain-http"]
)
def test_server_without_a_valid_certificate_is_a_fault(coordinator: Path, tls: str | None, detail: str) -> None:
    found = _look(coordinator, tls=tls)
    assert found["TLS"].grade == "fault"
    assert detail in found["TLS"].detail


def test_certificate_of_another_name_is_a_fault(coordinator: Path) -> None:
    with serve_status(status_of(), coordinator / "tls") as port:
        found = network.check_tls("ip6-loopback.localdomain", port, coordinator / "ca" / "ca.crt")
    assert found.grade == "fault"  # not resolved: never taken for the coordinator

    with serve_status(status_of(), coordinator / "tls") as port, pytest.MonkeyPatch.context() as patch:
        connect = socket.create_connection
        patch.setattr(socket, "create_connection", lambda address, **kwargs: connect((HOST, address[1]), **kwargs))
        found = network.check_tls("fed.example.org", port, coordinator / "ca" / "ca.crt")
    assert found.detail == "the certificate is not for fed.example.org"


@pytest.mark.parametrize(
    ("behind_s", "grade"),
    [(0, "fine"), (60, "warning"), (299, "warning"), (310, "fault"), (-3, "warning"), (-7, "fault")],
)
def test_clock_is_judged_by_what_flower_accepts(coordinator: Path, behind_s: float, grade: str) -> None:
    time = datetime.now(UTC) + timedelta(seconds=behind_s)
    found = _look(coordinator, time=time.isoformat())
    assert found["clock"].grade == grade
    assert ("behind" in found["clock"].detail) == (behind_s > 0) or behind_s == 0


def test_other_protocol_version_is_a_fault_that_names_both(coordinator: Path) -> None:
    found = _look(coordinator, protocol=PROTOCOL_VERSION + 1, hipfed="9.9")
    assert found["versions"].grade == "fault"
    assert found["versions"].detail == (
        f"coordinator hipfed 9.9 protocol {PROTOCOL_VERSION + 1}, "
        f"this hospital hipfed {own_version()} protocol {PROTOCOL_VERSION}"
    )
    assert "Install hipfed 9.9" in found["versions"].remedy


def test_other_version_with_the_same_protocol_is_told_and_no_fault(coordinator: Path) -> None:
    found = _look(coordinator, hipfed="9.9")
    assert found["versions"].grade == "fine"
    assert found["versions"].detail == (
        f"protocol {PROTOCOL_VERSION}, as the coordinator; hipfed {own_version()}, there 9.9"
    )


def test_another_programs_answer_is_a_fault(coordinator: Path) -> None:
    found = _look(coordinator, protocol="many")
    assert found["coordinator"].grade == "fault"
    assert found["clock"].grade == "unchecked"


def test_unknown_name_and_closed_port_are_faults_and_the_rest_is_unchecked(coordinator: Path) -> None:
    now, ca = datetime.now(UTC), coordinator / "ca" / "ca.crt"
    grades = [finding.grade for finding in check_network("no-such-host.invalid", 9443, ca, now=now)]
    assert grades == ["fine", "fault", *["unchecked"] * 5]

    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    grades = [finding.grade for finding in check_network(HOST, port, ca, now=now)]
    assert grades == ["fine", "fine", "fault", *["unchecked"] * 4]


def test_silent_firewall_is_told_from_a_closed_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object, **__: object) -> socket.socket:
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", silent)
    assert "firewall" in check_port("fed.example.org", 9443).remedy


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("http://user:secret@proxy.example.org:3128", "proxy.example.org"),
        ("http://[user:secret", "an unreadable address"),
    ],
)
def test_proxy_that_is_not_used_is_named_without_its_password(
    address: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", address)
    found = check_proxy("fed.example.org")
    assert found.detail == f"HTTPS_PROXY names {named}; hipfed does not use it: fed.example.org is reached directly"
