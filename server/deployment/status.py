"""State of the coordinator: its processes, its hospitals, its certificates."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from rich.console import Console

from server.deployment.seen import Sighting, read_sightings
from server.enrolment.authority import read_certificate
from server.enrolment.coordinator_home import CoordinatorHome
from shared_model.errors import EnrolmentError
from shared_model.identity.coordinator_status import REACHED, fetch_certificate
from shared_model.pages.screen_table import print_table
from shared_model.process.supervision import PartStatus, describe_age, describe_unanswered, read_status

_PARTS = ("superlink", "gateway")
_WARN_DAYS = 30


@dataclass(frozen=True)
class HospitalStatus:
    """How a hospital is.

    Attributes:
        name: of the hospital.
        state: connected, away or revoked.
        last: when it was heard last, UTC; None if never.
        question: that is unanswered, since when; "" if none is.
    """

    name: str
    state: str
    last: datetime | None
    question: str = ""


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
            question=_describe_question(sightings.get(one.name), now) if one.is_active else "",
        )
        for one in hospitals
    ]


def _describe_question(sighting: Sighting | None, now: datetime) -> str:
    if sighting is None or sighting.asked is None or sighting.left:
        return ""
    return describe_unanswered(sighting.question, sighting.asked, now)


def print_status(home: CoordinatorHome, console: Console) -> bool:
    """Show everything; returns whether both processes are up, and hospitals are shown a certificate that is valid."""
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
    if status is None:
        return False
    is_valid, said = judge_served(home, now)
    if said:
        console.print(said, markup=False, highlight=False, soft_wrap=True)
    return status.ready and is_valid


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
    rows = [
        (one.name, one.state, "never" if one.last is None else f"{describe_age(now - one.last)} ago")
        for one in hospitals
    ]
    print_table(console, ("hospital", "state", "last seen"), rows)
    for one in hospitals:
        if one.question:
            console.print(f"{one.name}: {one.question}", markup=False, highlight=False, soft_wrap=True)


def _describe_certificate(label: str, file: Path, now: datetime) -> str:
    try:
        left = x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc - now
    except (OSError, ValueError) as error:
        return f"{label}: expected one at {file}, got: {error}"
    if left < timedelta(0):
        return f"{label}: expired. Renew it."
    return f"{label}: {left.days} days left" + (". Renew it soon." if left.days < _WARN_DAYS else "")


def judge_served(home: CoordinatorHome, now: datetime) -> tuple[bool, str]:
    """True if the port itself shows a valid certificate, and what is to be said of it; "" if nothing is.

    The gateway serves the certificate that it read when it started, whatever the file holds since.
    """
    settings = home.settings
    what, remedy = f"certificate served at port {settings.port}", "Restart: `hipfed-server stop`, then `start`."
    try:
        served = fetch_certificate(REACHED.get(settings.listen, settings.listen), settings.port)
    except (OSError, ValueError) as error:
        return False, f"{what}: expected one, got: {error}. See gateway.log in {home.processes}."
    end = served.not_valid_after_utc
    if end < now:
        return (
            False,
            f"{what}: EXPIRED on {end:%Y-%m-%d}, so that no hospital connects. Renew it if the file is old. {remedy}",
        )
    try:
        same = read_certificate(home.tls / "server.crt") == served
    except EnrolmentError:
        same = False
    if same:
        return True, ""
    return True, f"{what}: expected that of tls/server.crt, got another, valid until {end:%Y-%m-%d}. {remedy}"
