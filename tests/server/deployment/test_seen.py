"""When hospitals were heard last."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from server.deployment.seen import SILENT, SeenHospitals, Sighting, read_sightings


def _kept(seen: SeenHospitals) -> None:
    thread = threading.Thread(target=seen.keep)
    thread.start()
    seen.end()
    thread.join()


def test_sightings_read_back_and_outlive_the_gateway(tmp_path: Path) -> None:
    seen = SeenHospitals(tmp_path / "seen.json")
    seen.note("north", "/v1/fleet/pull-messages")
    _kept(seen)
    again = SeenHospitals(tmp_path / "seen.json")
    again.note("east", "/v1/fleet/deactivate-node")
    _kept(again)

    sightings = read_sightings(tmp_path / "seen.json")

    now = datetime.now(UTC)
    assert {name: sighting.is_connected(now) for name, sighting in sightings.items()} == {"north": True, "east": False}


def test_hospital_that_fell_silent_is_not_connected() -> None:
    now = datetime.now(UTC)

    assert Sighting(now - SILENT + timedelta(seconds=1), left=False).is_connected(now)
    assert not Sighting(now - SILENT, left=False).is_connected(now)


def test_file_that_cannot_be_read_holds_nothing(tmp_path: Path) -> None:
    assert read_sightings(tmp_path / "none.json") == {}
    (tmp_path / "seen.json").write_text('{"north": 3}')
    assert read_sightings(tmp_path / "seen.json") == {}


def test_question_is_unanswered_until_the_hospital_answers_or_comes_anew(tmp_path: Path) -> None:
    seen = SeenHospitals(tmp_path / "seen.json")
    for name in ("east", "north", "south"):
        seen.note(name, "/v1/fleet/pull-messages", "query.explain")
        seen.note(name, "/v1/fleet/pull-object")
        seen.note(name, "/v1/fleet/send-node-heartbeat")
    seen.note("north", "/v1/fleet/push-messages")
    seen.note("south", "/v1/fleet/activate-node")
    _kept(seen)

    found = read_sightings(tmp_path / "seen.json")

    assert {name: one.question for name, one in found.items()} == {"east": "query.explain", "north": "", "south": ""}
    assert found["east"].asked is not None
    assert found["north"].asked is None
