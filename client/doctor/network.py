"""The way to the coordinator: proxy variables, name, port, TLS, clock, protocol; each rests on the one before."""

import os
import socket
import ssl
from contextlib import closing
from datetime import datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

from client.doctor.finding import CheckResult
from shared_model.identity.coordinator_status import (
    CoordinatorStatus,
    UnreachableError,
    fetch_certificate,
    fetch_status,
)
from shared_model.identity.tls import trusting
from shared_model.protocol.messages import PROTOCOL_VERSION
from shared_model.version import own_version

TIMEOUT_S = 5.0


def check_network(host: str, port: int, ca: Path, *, now: datetime) -> list[CheckResult]:
    """From the name to the protocol; what rests on a fault is `unchecked`.

    Args:
        host: of the coordinator.
        port: of the coordinator.
        ca: its CA certificate.
        now: this machine's clock.
    """
    findings = [check_proxy(host)]
    checks = (partial(check_name, host), partial(check_port, host, port), partial(check_tls, host, port, ca))
    for check in checks:
        findings.append(check())
        if findings[-1].grade == "fault":
            return [*findings, *_unchecked(findings[-1].subject, after=len(findings))]
    try:
        status = fetch_status(host, port, ca, timeout_s=TIMEOUT_S)
    except UnreachableError as error:
        return [*findings, CheckResult("coordinator", "fault", str(error)), *_unchecked("coordinator", after=5)]
    return [*findings, CheckResult("coordinator", "fine", f"hipfed {status.hipfed}"), *judge_status(status, now=now)]


_PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
_ORDER = ("proxy", "name", "port", "TLS", "coordinator", "clock", "versions")


def _unchecked(fault: str, *, after: int) -> list[CheckResult]:
    return [CheckResult(subject, "unchecked", f"mend {fault} first") for subject in _ORDER[after:]]


def check_proxy(host: str) -> CheckResult:
    """What proxy variables say, which hipfed does not follow: its way to the coordinator is direct."""
    names = [name for name in _PROXY_VARIABLES if os.environ.get(name)]
    if not names:
        return CheckResult("proxy", "fine", "no proxy variable is set")
    shown = _name_proxy(os.environ[names[0]])
    return CheckResult(
        "proxy", "fine", f"{', '.join(names)} names {shown}; hipfed does not use it: {host} is reached directly"
    )


def _name_proxy(address: str) -> str:
    """Without a password that may stand in it."""
    try:
        return urlsplit(address).hostname or "an unreadable address"
    except ValueError:
        return "an unreadable address"


def check_name(host: str) -> CheckResult:
    """Check that the coordinator's name is known here."""
    try:
        found = sorted({str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})
    except OSError as error:
        remedy = "Mend `server` in hospital.toml, or let the DNS server (or /etc/hosts) know the name."
        return CheckResult("name", "fault", f"{host}: {error.strerror or error}", remedy)
    return CheckResult("name", "fine", f"{host} is {', '.join(found)}")


def check_port(host: str, port: int) -> CheckResult:
    """Check that something listens there and a firewall lets this machine through."""
    try:
        socket.create_connection((host, port), timeout=TIMEOUT_S).close()
    except ConnectionRefusedError:
        return CheckResult(
            "port",
            "fault",
            f"{host}:{port} refuses connections",
            "Ask the coordinator whether it runs; check the port.",
        )
    except TimeoutError:
        return CheckResult(
            "port",
            "fault",
            f"{host}:{port} does not answer within {TIMEOUT_S:g} s",
            f"Let this machine's firewall pass outgoing TCP to {host}, port {port}, without a proxy; nothing incoming "
            "is needed.",
        )
    except OSError as error:
        return CheckResult("port", "fault", f"{host}:{port}: {error.strerror or error}", "Check the route to it.")
    return CheckResult("port", "fine", f"{host}:{port} is open")


def check_tls(host: str, port: int, ca: Path) -> CheckResult:
    """Check that the other end is the coordinator, by our CA certificate."""
    try:
        context = trusting(ca)
    except (OSError, ssl.SSLError):
        return CheckResult("TLS", "fault", f"{ca} cannot be used", "See ca.crt above.")
    try:
        with (
            closing(socket.create_connection((host, port), timeout=TIMEOUT_S)) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            return CheckResult("TLS", "fine", f"{connection.version()}, certificate signed by ca.crt")
    except ssl.SSLCertVerificationError as error:
        return _explain_certificate(host, port, error)
    except (OSError, ssl.SSLError) as error:
        return CheckResult(
            "TLS",
            "fault",
            f"no TLS 1.3 at {host}:{port} ({getattr(error, 'reason', None) or error})",
            "Another program listens there, or a proxy cuts TLS. Check address and port with the coordinator.",
        )


def _explain_certificate(host: str, port: int, error: ssl.SSLCertVerificationError) -> CheckResult:
    shown = _shown_certificate(host, port)
    issuer = shown.issuer.rfc4514_string() if shown else "unknown"
    why = error.verify_message
    if "expired" in why:
        end = f" on {shown.not_valid_after_utc:%Y-%m-%d}" if shown else ""
        return CheckResult(
            "TLS",
            "fault",
            f"the coordinator's certificate expired{end}",
            "Check this machine's clock; if it is right, the coordinator has to renew (provision --renew).",
        )
    if "mismatch" in why.lower() or "not valid for" in why:
        return CheckResult(
            "TLS",
            "fault",
            f"the certificate is not for {host}",
            "Use the address that the coordinator named, or let it add this name and renew.",
        )
    return CheckResult(
        "TLS",
        "fault",
        f"the certificate there is issued by {issuer}, not by ca.crt's authority",
        "If that is your network's security appliance, have it pass this address through unopened. Else this is "
        "another server, or ca.crt is another coordinator's: compare fingerprints by telephone.",
    )


def _shown_certificate(host: str, port: int) -> x509.Certificate | None:
    """The certificate that the other end shows, unverified: only to name its issuer."""
    try:
        return fetch_certificate(host, port, timeout_s=TIMEOUT_S)
    except (OSError, ValueError):
        return None


def judge_status(status: CoordinatorStatus, *, now: datetime) -> list[CheckResult]:
    """Clock and protocol, from what the coordinator says of itself."""
    return [_judge_clock((now - status.time).total_seconds()), _judge_protocol(status)]


def _judge_clock(ahead_s: float) -> CheckResult:
    """The SuperNode signs its clock's time, which the SuperLink takes only if it is hardly ahead of its own."""
    detail = f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the coordinator's"
    remedy = "Let NTP set it (timedatectl set-ntp true), or ask the coordinator to check its own."
    if ahead_s >= SYSTEM_TIME_TOLERANCE or -ahead_s >= TIMESTAMP_TOLERANCE:
        return CheckResult("clock", "fault", f"{detail}: signed requests are refused", remedy)
    if abs(ahead_s) >= SYSTEM_TIME_TOLERANCE / 2:
        return CheckResult("clock", "warning", detail, remedy)
    return CheckResult("clock", "fine", detail)


def _judge_protocol(status: CoordinatorStatus) -> CheckResult:
    """Questions are refused where the protocols differ; hipfed's own versions may."""
    here = own_version()
    if status.protocol != PROTOCOL_VERSION:
        return CheckResult(
            "versions",
            "fault",
            f"coordinator hipfed {status.hipfed} protocol {status.protocol}, this hospital hipfed {here} protocol "
            f"{PROTOCOL_VERSION}",
            f"Install hipfed {status.hipfed}, then approve the study again.",
        )
    if status.hipfed != here:
        detail = f"protocol {PROTOCOL_VERSION}, as the coordinator; hipfed {here}, there {status.hipfed}"
        return CheckResult("versions", "fine", detail)
    return CheckResult("versions", "fine", f"hipfed {here}, protocol {PROTOCOL_VERSION}, as the coordinator")
