"""Words about hospitals that let a question wait."""

from datetime import timedelta
from pathlib import Path

import pytest

from server.deployment.seen import SeenHospitals, read_sightings
from server.deployment.unanswered import UnansweredQuestions


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    file = tmp_path / "seen.json"
    kept = SeenHospitals(file)
    kept.note("east", "/v1/fleet/pull-messages", "query.explain")
    kept.note("north", "/v1/fleet/pull-messages", "query.explain")
    kept.note("north", "/v1/fleet/push-messages")
    kept.note("of another run", "/v1/fleet/pull-messages", "train")
    kept.end()
    kept.keep()
    return file


def test_question_is_told_after_a_minute_and_then_each_time_after_twice_as_long(seen: Path) -> None:
    said: list[str] = []
    questions = UnansweredQuestions(seen, hospitals=["east", "north"], say=said.append)
    asked = read_sightings(seen)["east"].asked
    assert asked is not None

    for seconds in range(0, 241, 20):
        questions.look(asked + timedelta(seconds=seconds))

    at = f"{asked:%H:%M}"
    assert said == [
        f"east: question query.explain unanswered since {at} UTC ({age})" for age in ("1 min", "2 min", "4 min")
    ]
