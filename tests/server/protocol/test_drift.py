from typing import Any

import pytest

from server.protocol.drift import describe_drift, explains_round
from shared_model.config import Phase, parse_settings

HIDDEN = {"suppressed": True}
A = {"a": 0.5, "b": 0.3, "c": 0.2}
B = {"a": 0.2, "b": 0.3, "c": 0.5}


def line(number: int, shares: dict[str, Any], **sites: dict[str, Any]) -> dict[str, Any]:
    return {"round": number, "phase": "fusion", "explanation": {"background_id": "b", "shares": shares, "sites": sites}}


def drift_of(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    groups: dict[str, Any] = describe_drift([line(1, old), line(2, new)])[0]["groups"]["all hospitals"]
    return groups


# ------------------------------------------------------------------------------------------------------------ distances


def test_shares_that_turn_round_are_at_distance_six_tenths_with_reversed_ranks() -> None:
    assert drift_of(A, B) == {"l1": pytest.approx(0.6), "rank_correlation": pytest.approx(-1.0), "top_overlap": 0.5}


def test_shares_that_stay_are_at_no_distance() -> None:
    assert drift_of(A, A) == {"l1": 0.0, "rank_correlation": pytest.approx(1.0), "top_overlap": 1.0}


def test_order_of_the_modalities_does_not_matter() -> None:
    assert drift_of(A, dict(reversed(B.items()))) == drift_of(A, B)


def test_ranks_have_no_correlation_when_all_shares_are_equal() -> None:
    equal = {"a": 0.5, "b": 0.5}
    assert drift_of(equal, {"a": 0.6, "b": 0.4})["rank_correlation"] is None
    assert drift_of({"a": 0.6, "b": 0.4}, equal)["rank_correlation"] is None


def test_only_modality_stays_the_largest() -> None:
    assert drift_of({"a": 1.0}, {"a": 1.0}) == {"l1": 0.0, "rank_correlation": None, "top_overlap": 1.0}


def test_shares_that_exchange_all_are_at_distance_two() -> None:
    assert drift_of({"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0})["l1"] == 2.0


# --------------------------------------------------------------------------------------------------------------- rounds


def test_each_explained_round_is_compared_with_the_one_before_it() -> None:
    rounds = [line(2, A), {"round": 3, "phase": "fusion"}, line(4, B), {"round": 5}, line(6, B)]

    found = describe_drift(rounds)

    assert [(step["from"], step["to"]) for step in found] == [(2, 4), (4, 6)]
    assert [step["groups"]["all hospitals"]["l1"] for step in found] == [pytest.approx(0.6), 0.0]


@pytest.mark.parametrize("rounds", [[], [{"round": 1}], [line(1, A)]])
def test_fewer_than_two_explained_rounds_have_no_drift(rounds: list[dict[str, Any]]) -> None:
    assert describe_drift(rounds) == []


def test_hospital_that_hides_its_shares_in_one_of_two_rounds_is_left_out() -> None:
    found = describe_drift([line(1, A, east=A, north=HIDDEN, south=A), line(2, B, east=B, north=B, south=HIDDEN)])
    assert set(found[0]["groups"]) == {"all hospitals", "east"}


def test_hidden_shares_of_all_hospitals_are_left_out() -> None:
    found = describe_drift([line(1, HIDDEN, east=A), line(2, A, east=B)])
    assert set(found[0]["groups"]) == {"east"}


def test_constant_model_is_left_out() -> None:
    found = describe_drift([line(1, dict.fromkeys("abc")), line(2, A)])
    assert found == [{"from": 1, "to": 2, "groups": {}}]


@pytest.mark.parametrize(
    ("phase", "number", "every", "explain", "expected"),
    [
        ("fusion", 4, 2, "features", True),
        ("joint", 4, 4, "modalities", True),
        ("fusion", 3, 2, "features", False),
        ("fusion", 4, 0, "features", False),
        ("unimodal", 4, 2, "features", False),
        ("fusion", 4, 2, "none", False),
    ],
)
def test_every_kth_round_that_fuses_is_explained(
    phase: Phase, number: int, every: int, explain: str, *, expected: bool
) -> None:
    settings = parse_settings({"explain-every": every, "explain": explain})
    assert explains_round(settings, phase, number) == expected
