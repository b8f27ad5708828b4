"""How the coordinator is."""

import json
import os
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

from rich.console import Console

from server.deployment.gateway import Gateway
from server.deployment.seen import SeenHospitals
from server.deployment.status import judge_served, list_statuses, print_status
from server.enrolment.authority import issue_server_certificate, open_authority
from server.enrolment.coordinator_home import CoordinatorHome
from shared_model.process.folder_lock import hold_lock
from shared_model.process.supervision import LOCK, STATUS
from tests.server.coordinator_home import make_home, revoke
from tests.server.running_gateway import serve_gateway, serving


def _see(home: CoordinatorHome, **ages_s: float) -> None:
    """Write when hospitals were seen; a negative age says goodbye."""
    home.processes.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    content = {
        name: {"last": (now - timedelta(seconds=abs(age))).isoformat(), "left": age < 0} for name, age in ages_s.items()
    }
    home.seen.write_text(json.dumps(content))


def _print(home: CoordinatorHome) -> tuple[bool, str]:
    screen = StringIO()
    is_up = print_status(home, Console(file=screen, width=200))
    return is_up, screen.getvalue()


def test_hospitals_are_connected_away_or_revoked(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", ["a", "b", "c", "d", "e"])
    revoke(home.folder, "d")
    _see(home, a=3, b=300, c=-2, d=1)

    statuses = {one.name: one.state for one in list_statuses(home, now=datetime.now(UTC))}

    assert statuses == {"a": "connected", "b": "away", "c": "away", "d": "revoked", "e": "away"}


def test_coordinator_that_does_not_run_is_told_with_hospitals_and_certificates(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", ["north", "south"])
    _see(home, north=7200)

    is_up, screen = _print(home)

    assert not is_up
    for words in (
        "not running",
        "superlink: down",
        "gateway: down",
        "2 h ago",
        "never",
        "CA certificate: 3651 days left",
    ):
        assert words in screen


def test_status_of_a_killed_coordinator_is_not_taken_for_the_present(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    _write_status(home)

    assert not _print(home)[0]
    with hold_lock(home.processes, LOCK), serving(serve_gateway(home, _gateway(home))):
        is_up, screen = _print(home)
    assert is_up
    assert "gateway: up for 1 min, restarts 2" in screen


def test_certificate_that_is_missing_is_told(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    (home.tls / "server.crt").unlink()

    assert "server certificate: expected one at" in _print(home)[1]


def test_gateway_that_does_not_listen_is_told_and_counts(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    _write_status(home)

    with hold_lock(home.processes, LOCK):
        is_up, screen = _print(home)

    assert not is_up
    assert f"certificate served at port {home.settings.port}: expected one, got: " in screen


def test_unanswered_question_is_told_with_its_hospital(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", ["north", "south"])
    home.processes.mkdir(exist_ok=True)
    seen = SeenHospitals(home.seen)
    seen.note("north", "/v1/fleet/pull-messages", "query.explain")
    seen.note("south", "/v1/fleet/pull-messages", "train")
    seen.note("south", "/v1/fleet/push-messages")
    seen.end()
    seen.keep()

    screen = _print(home)[1]

    assert "north: question query.explain unanswered since " in screen
    assert "south: question" not in screen


def test_served_certificate_is_looked_at_and_not_the_file(tmp_path: Path) -> None:
    home, now = make_home(tmp_path / "home"), datetime.now(UTC)
    with serving(serve_gateway(home, _gateway(home))):
        assert judge_served(home, now) == (True, "")

        late = judge_served(home, now + timedelta(days=900))
        issue_server_certificate(home.tls, open_authority(home.authority, now=now), ["127.0.0.1"], now=now)
        renewed = judge_served(home, now)

    assert not late[0]
    assert "EXPIRED on " in late[1]
    assert renewed[0]
    assert "expected that of tls/server.crt, got another, valid until " in renewed[1]
    assert "`hipfed-server stop`, then `start`" in renewed[1]


def _gateway(home: CoordinatorHome) -> Gateway:
    return Gateway(home.settings.superlink, ca=home.ca, find_hospital=lambda _: None, seen=lambda *_: None)


def _write_status(home: CoordinatorHome) -> None:
    home.processes.mkdir()
    since = (datetime.now(UTC) - timedelta(seconds=61)).isoformat()
    parts = [
        {"name": name, "state": "ready", "since": since, "pid": 1, "restarts": 2, "reason": ""}
        for name in ("superlink", "gateway")
    ]
    times = {"started": since, "updated": datetime.now(UTC).isoformat()}
    content = {"pid": os.getpid(), "token": "t", **times, "ready": True, "line": "up", "parts": parts}
    (home.processes / STATUS).write_text(json.dumps(content))
