from itertools import chain, combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_model.errors import SettingsError, SuppressedError
from shared_model.privacy.suppression import SiteRow, SmallCellRule, histogram_bins_allowed, suppressed_row

UNTIMED = settings(deadline=None)  # a busy machine is not a failure
RULE = SmallCellRule()


@st.composite
def tables(draw: st.DrawFn) -> dict[str, SiteRow]:
    """Up to 7 sites, small or empty ones among them; a site that may release its row may still keep it back."""
    rows = {}
    for index in range(draw(st.integers(1, 7))):
        n = draw(st.sampled_from([0, 1, 6, 9, 10, 11, 15, 30, 130]))
        events = draw(st.integers(0, min(n, 12)))
        rows[f"site-{index}"] = SiteRow(n, events, released=RULE.may_release(n, events) and draw(st.booleans()))
    return rows


def passes(rows: list[SiteRow]) -> bool:
    return RULE.may_release(sum(row.n for row in rows), sum(row.events for row in rows))


@pytest.mark.parametrize(
    ("name", "value"), [("min_patients", 9), ("min_events", 4), ("min_non_events", 0), ("min_sites", 2)]
)
def test_tighten_refuses_a_number_that_would_loosen(name: str, value: int) -> None:
    with pytest.raises(
        SettingsError, match=f"{name.replace('_', '-')} at small-cell rule of the site: expected at least"
    ):
        RULE.tighten(**{name: value})


def test_tighten_names_every_number_that_would_loosen() -> None:
    with pytest.raises(SettingsError, match=r"(?s)min-patients.*got 3.*min-sites.*got 1"):
        RULE.tighten(min_patients=3, min_events=8, min_sites=1)


@pytest.mark.parametrize(
    ("name", "value"), [("min_patients", 0), ("min_events", 0), ("min_non_events", -1), ("min_sites", 0)]
)
def test_rule_refuses_a_number_below_its_lowest(name: str, value: int) -> None:
    with pytest.raises(SettingsError, match=f"{name.replace('_', '-')} at small-cell rule: expected at least"):
        SmallCellRule(**{name: value})


@pytest.mark.parametrize(("n", "events"), [(5, 6), (5, -1), (-1, -1)])
def test_may_release_refuses_counts_that_cannot_be(n: int, events: int) -> None:
    with pytest.raises(ValueError, match="expected 0 <= events <= n"):
        RULE.may_release(n, events)


def test_min_sites_are_named_when_too_few_answered() -> None:
    with pytest.raises(SuppressedError, match=r"at least 3 sites \(min-sites\), got 2"):
        RULE.check_min_sites(2)


def test_min_sites_are_enough_at_the_limit() -> None:
    RULE.check_min_sites(3)
    SmallCellRule(min_sites=2).check_min_sites(2)


def test_complementary_refuses_a_row_released_against_the_rule() -> None:
    with pytest.raises(ValueError, match="expected released rows to pass"):
        RULE.complementary({"a": SiteRow(9, 4, released=True)})


def test_complementary_refuses_a_negative_number_of_known_rows() -> None:
    with pytest.raises(SettingsError, match="known_rows"):
        RULE.complementary({}, known_rows=-1)


def test_complementary_refuses_the_pooled_row_when_even_hiding_all_gives_one_away() -> None:
    sites = {"a": SiteRow(8, 2, released=False), "b": SiteRow(0, 0, released=False)}
    with pytest.raises(SuppressedError, match="Leave out the pooled row"):
        RULE.complementary(sites)


def test_complementary_refuses_the_pooled_row_of_one_site_that_keeps_its_row_back() -> None:
    with pytest.raises(SuppressedError, match="pooled row"):
        RULE.complementary({"a": SiteRow(500, 40, released=False)})


def test_complementary_hides_nothing_when_every_row_is_released() -> None:
    assert RULE.complementary({"a": SiteRow(130, 10, released=True)}) == frozenset()


def test_complementary_hides_the_smallest_released_site_when_one_is_hidden() -> None:
    sites = {
        "a": SiteRow(400, 31, released=True),
        "b": SiteRow(60, 4, released=False),
        "c": SiteRow(130, 10, released=True),
        "d": SiteRow(900, 70, released=True),
    }
    assert RULE.complementary(sites) == {"c"}


def test_complementary_hides_nothing_more_when_two_hidden_sites_pass_together() -> None:
    sites = {
        "a": SiteRow(60, 4, released=False),
        "b": SiteRow(50, 3, released=False),
        "c": SiteRow(130, 10, released=True),
    }
    assert RULE.complementary(sites) == frozenset()


def test_complementary_goes_on_when_two_hidden_sites_are_still_a_small_cell() -> None:
    sites = {
        "a": SiteRow(8, 1, released=False),
        "b": SiteRow(30, 3, released=False),  # together 38 patients but 4 events
        "c": SiteRow(130, 10, released=True),
        "d": SiteRow(120, 10, released=True),
    }
    assert RULE.complementary(sites) == {"d"}


def test_complementary_does_not_count_an_empty_site_as_cover() -> None:
    # whoever sees the rest sees all of a: b hides nobody
    sites = {
        "a": SiteRow(200, 16, released=False),
        "b": SiteRow(0, 0, released=False),
        "c": SiteRow(130, 10, released=True),
        "d": SiteRow(300, 20, released=True),
    }
    assert RULE.complementary(sites) == {"c"}


def test_complementary_hides_true_zeros_like_any_small_site() -> None:
    sites = {
        "empty": SiteRow(0, 0, released=False),
        "c": SiteRow(130, 10, released=True),
        "d": SiteRow(300, 20, released=True),
        "e": SiteRow(400, 20, released=True),
    }
    assert RULE.complementary(sites) == {"c", "d"}


def test_complementary_hides_one_more_when_a_hidden_hospital_reads_the_table() -> None:
    sites = {
        "a": SiteRow(60, 4, released=False),
        "c": SiteRow(130, 10, released=True),
        "d": SiteRow(400, 31, released=True),
        "e": SiteRow(900, 70, released=True),
    }
    # with {a, c} hidden, c subtracts its own row and has a's
    assert RULE.complementary(sites) == {"c"}
    assert RULE.complementary(sites, known_rows=1) == {"c", "d"}


def test_complementary_breaks_ties_by_name() -> None:
    sites = {
        "z": SiteRow(130, 10, released=True),
        "b": SiteRow(130, 10, released=True),
        "a": SiteRow(3, 0, released=False),
    }
    assert RULE.complementary(sites) == {"b"}


@pytest.mark.parametrize("known_rows", [0, 1, 2])
@UNTIMED
@given(sites=tables())
def test_no_subtraction_of_printed_rows_gives_a_failing_group(sites: dict[str, SiteRow], known_rows: int) -> None:
    try:
        further = RULE.complementary(sites, known_rows=known_rows)
    except SuppressedError:
        return  # no pooled row is printed, so there is nothing to subtract from
    printed = {name for name, row in sites.items() if row.released} - further
    hidden = [name for name in sites if name not in printed and sites[name].n]
    silent = any(not row.released for row in sites.values())
    for known in chain.from_iterable(combinations(hidden, size) for size in range(known_rows + 1)):
        for subtracted in chain.from_iterable(combinations(sorted(printed), size) for size in range(len(printed) + 1)):
            left = [row for name, row in sites.items() if name not in {*subtracted, *known}]
            assert passes(left) or not left
            assert not silent or sum(row.n > 0 for row in left) >= 2


@UNTIMED
@given(sites=tables())
def test_complementary_stops_as_soon_as_the_hidden_sites_pass(sites: dict[str, SiteRow]) -> None:
    try:
        further = RULE.complementary(sites)
    except SuppressedError:
        return
    if further:
        last = max(further, key=lambda name: (sites[name].n, name))
        before = [row for name, row in sites.items() if row.n and (not row.released or name in further - {last})]
        assert len(before) < 2 or not passes(before)


@UNTIMED
@given(sites=tables())
def test_pooled_row_is_refused_only_when_all_sites_together_fail(sites: dict[str, SiteRow]) -> None:
    rows = [row for row in sites.values() if row.n]
    try:
        RULE.complementary(sites)
    except SuppressedError:
        assert len(rows) < 2 or not passes(rows)
    else:
        assert all(row.released for row in sites.values()) or (len(rows) >= 2 and passes(rows))


@pytest.mark.parametrize(
    ("n", "events", "allowed"),
    [(10, 5, True), (9, 5, False), (10, 4, False), (10, 6, False), (0, 0, False), (130, 10, True), (130, 126, False)],
)
def test_may_release_needs_ten_patients_five_events_and_five_others(n: int, events: int, *, allowed: bool) -> None:
    assert RULE.may_release(n, events) is allowed


def test_tighten_raises_the_given_numbers_and_keeps_the_others() -> None:
    assert RULE.tighten(min_patients=20) == SmallCellRule(min_patients=20, min_events=5, min_non_events=5, min_sites=3)
    assert RULE.tighten() == RULE


@UNTIMED
@given(st.integers(0, 200), st.integers(0, 200))
def test_tightened_rule_releases_nothing_that_the_first_one_hides(events: int, others: int) -> None:
    tighter = RULE.tighten(min_patients=25, min_events=6, min_non_events=7)
    assert RULE.may_release(events + others, events) or not tighter.may_release(events + others, events)


def test_suppressed_row_says_only_that_it_is_suppressed() -> None:
    assert suppressed_row() == {"suppressed": True}


@pytest.mark.parametrize(("n", "bins"), [(0, 0), (9, 0), (10, 1), (19, 1), (1669, 166)])
def test_histogram_has_at_most_a_bin_per_ten_patients(n: int, bins: int) -> None:
    assert histogram_bins_allowed(n) == bins


def test_histogram_refuses_a_negative_number_of_patients() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        histogram_bins_allowed(-1)
