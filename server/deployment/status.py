"""How the coordinator is: its processes, its hospitals, its certificates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from rich.console import Console
from rich.table import Table

from server.deployment.seen import Sighting, read_sightings
from server.enrolment.coordinator_home import CoordinatorHome
from shared_model.supervised import PartStatus, describe_age, read_status

_PARTS = ("superlink", "gateway")
_WARN_DAYS = 30


@dataclass(frozen=True)
class HospitalStatus:
    """How a hospital is.

    Attributes:
        name: of the hospital.
        state: connected, away or revoked.
        last: when it was heard last, UTC; None if never.
    """

    name: str
    state: str
    last: datetime | None


def list_statuses(home: CoordinatorHome, *, now: datetime) -> list[HospitalStatus]:
    """All hospitals, revoked ones too."""
    sightings = read_sightings(home.seen)

    def describe(sighting: Sighting | None, *, revoked: bool) -> str:
        if revoked:
            return "revoked"
        return "connected" if sighting is not None and sighting.is_connected(now) else "away"

    with home.open_registry() as registry:
        hospitals = registry.hospitals
    return [
        HospitalStatus(
            one.name,
            describe(sightings.get(one.name), revoked=not one.is_active),
            sightings[one.name].last if one.name in sightings else None,
        )
        for one in hospitals
    ]


def print_status(home: CoordinatorHome, console: Console) -> bool:
    """Show everything; returns whether both processes are up."""
    now = datetime.now(UTC)
    status = read_status(home.processes)
    if status is None:
        console.print("not running", highlight=False)
    else:
        console.print(status.line, markup=False, highlight=False, soft_wrap=True)
    parts = {part.name: part for part in status.parts} if status is not None else {}
    for name in _PARTS:
        console.print(_describe_part(name, parts.get(name), now), markup=False, highlight=False, soft_wrap=True)
    _print_hospitals(list_statuses(home, now=now), console, now)
    for label, file in (("server certificate", home.tls / "server.crt"), ("CA certificate", home.ca)):
        console.print(_describe_certificate(label, file, now), markup=False, highlight=False)
    return status is not None and status.ready


def _describe_part(name: str, part: PartStatus | None, now: datetime) -> str:
    if part is None:
        return f"{name}: down"
    state = {"ready": "up", "starting": "starting", "waiting": "down"}[part.state]
    trouble = f": {part.reason}" if part.reason else ""
    return f"{name}: {state} for {describe_age(now - part.since)}, restarts {part.restarts}{trouble}"


def _print_hospitals(hospitals: list[HospitalStatus], console: Console, now: datetime) -> None:
    if not hospitals:
        console.print("no hospital is enrolled", highlight=False)
        return
    table = Table("hospital", "state", "last seen")
    for one in hospitals:
        table.add_row(one.name, one.state, "never" if one.last is None else f"{describe_age(now - one.last)} ago")
    console.print(table)


def _describe_certificate(label: str, file: Path, now: datetime) -> str:
    try:
        left = x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc - now
    except (OSError, ValueError) as error:
        return f"{label}: expected one at {file}, got: {error}"
    if left < timedelta(0):
        return f"{label}: expired. Renew it."
    return f"{label}: {left.days} days left" + (". Renew it soon." if left.days < _WARN_DAYS else "")
