"""Rows of hospitals beside the row of all, worked out by hand: at least 10 patients, 5 deaths and 5 survivors."""

from typing import Any

import pytest

from server.protocol.site_rows import hide_rows
from shared_model.privacy.suppression import SmallCellRule

RULE = SmallCellRule(min_patients=10, min_events=5, min_non_events=5, min_sites=3)
HIDDEN: dict[str, Any] = {"suppressed": True}
ROWS = {"a": (100, 20), "b": (60, 12), "c": (50, 10)}


def _rows(*hidden: str, **released: tuple[int, int]) -> dict[str, dict[str, Any]]:
    shown = {name: {"n": n, "events": events, "auc": 0.7} for name, (n, events) in released.items()}
    return shown | {name: dict(HIDDEN) for name in hidden}


def _shown(rows: dict[str, dict[str, Any]], *, n: int, events: int, known_rows: int = 1) -> tuple[bool, set[str]]:
    allowed, left = hide_rows(rows, n=n, events=events, rule=RULE, known_rows=known_rows)
    assert set(left) == set(rows)
    assert all(left[name] == rows[name] or left[name] == HIDDEN for name in rows)
    return allowed, {name for name, row in left.items() if row != HIDDEN}


def test_nothing_is_hidden_where_every_hospital_releases_its_row() -> None:
    assert _shown(_rows(**ROWS), n=210, events=42) == (True, {"a", "b", "c"})


def test_two_more_are_hidden_beside_one_because_each_hospital_knows_its_own_row() -> None:
    # d is 290 - 210 = 80 patients: all less a, b, c would be its row. Hidden with c it is known to c.
    assert _shown(_rows("d", **ROWS), n=290, events=58) == (True, {"a"})


def test_one_more_is_hidden_beside_two() -> None:
    assert _shown(_rows("d", "e", **ROWS), n=290, events=58) == (True, {"a", "b"})


def test_a_reader_outside_the_study_knows_no_row_so_one_more_is_enough() -> None:
    assert _shown(_rows("d", a=(100, 20), b=(60, 12)), n=163, events=33, known_rows=0) == (True, {"a"})


def test_smallest_rows_are_hidden_first_and_names_decide_between_equals() -> None:
    rows = _rows("e", a=(50, 10), b=(50, 10), c=(50, 10), d=(51, 10))

    assert _shown(rows, n=241, events=48) == (True, {"c", "d"})


def test_hidden_rows_are_joined_by_more_until_what_one_does_not_know_passes_the_rule() -> None:
    # Three hidden have 2 + 2 + 5 deaths; whoever is the one of 5 leaves 4, so b (6 deaths) is hidden as well.
    rows = _rows("d", "e", a=(100, 20), b=(30, 6), c=(20, 5))

    assert _shown(rows, n=190, events=35) == (True, {"a"})


@pytest.mark.parametrize(("n", "events"), [(15, 6), (12, 5)])
def test_row_of_all_is_hidden_too_where_it_would_give_one_away_with_everybody_hidden(n: int, events: int) -> None:
    assert _shown(_rows("d", a=(12, 5)), n=n, events=events) == (False, set())


def test_row_of_all_is_hidden_where_it_is_a_small_group_itself() -> None:
    assert _shown(_rows("a", "b", "c"), n=30, events=4)[0] is False


def test_hospitals_that_hide_themselves_are_counted_evenly_so_no_count_of_theirs_is_needed() -> None:
    # 210 released, 31 patients and 7 deaths left over three: 11 + 10 + 10 and 3 + 2 + 2; two of them have 4 deaths < 5.
    assert _shown(_rows("x", "y", "z", **ROWS), n=241, events=49) == (True, {"a", "b"})
    # With 9 deaths left they are 3 + 3 + 3, and two of them have 6.
    assert _shown(_rows("x", "y", "z", **ROWS), n=241, events=51) == (True, {"a", "b", "c"})


def test_totals_that_contradict_the_rows_hide_rather_than_fail() -> None:
    # 44 - 42 = 2 deaths are left over and no patient; d counts as 2 patients who died, and c and b are hidden with it.
    assert _shown(_rows("d", **ROWS), n=210, events=44) == (True, {"a"})
