"""Sums are exact over those who answered, whoever is lost, and nothing is opened below the threshold."""

from itertools import combinations

import numpy as np
import pytest

from shared_model.errors import SecureSumError
from tests.shared_model.privacy.secure_sum.hospitals import NAMES, Hospitals, add, draw_values


@pytest.mark.parametrize(("n", "threshold"), [(3, 3), (3, 2), (5, 3), (5, 5)])
def test_sum_is_exact_modulo_the_range_in_every_round(n: int, threshold: int) -> None:
    hospitals = Hospitals(n, threshold=threshold)
    hospitals.begin()

    for round_ in range(3):
        values = draw_values(hospitals.all, 100, seed=round_)
        opened = hospitals.open(round_, hospitals.mask(round_, values))
        np.testing.assert_array_equal(opened, add(values.values()))


@pytest.mark.parametrize("lost", [*combinations(NAMES, 1), *combinations(NAMES, 2)])
def test_hospitals_lost_before_they_answer_leave_the_sum_of_the_others(lost: tuple[str, ...]) -> None:
    hospitals = Hospitals(threshold=3)
    hospitals.begin()
    values = draw_values(set(NAMES) - set(lost), 50)

    total = hospitals.mask(0, values)
    assert total.lost == tuple(sorted(lost))
    np.testing.assert_array_equal(hospitals.open(0, total), add(values.values()))


def test_hospitals_lost_after_they_answered_are_in_the_sum() -> None:
    hospitals = Hospitals(threshold=3)
    hospitals.begin()
    values = draw_values(set(NAMES) - {"west"}, 50)
    opened = hospitals.open(0, hospitals.mask(0, values), silent=["east"])

    np.testing.assert_array_equal(opened, add(values.values()))


def test_hospital_that_offers_no_keys_is_left_out_of_all_rounds() -> None:
    hospitals = Hospitals(threshold=4)
    hospitals.begin(set(NAMES) - {"north"})
    values = draw_values(set(NAMES) - {"north"}, 50)

    np.testing.assert_array_equal(hospitals.open(1, hospitals.mask(1, values)), add(values.values()))


def test_hospital_that_was_lost_in_one_round_answers_the_next() -> None:
    hospitals = Hospitals(threshold=3)
    hospitals.begin()
    hospitals.open(0, hospitals.mask(0, draw_values(set(NAMES) - {"south"}, 10)))
    values = draw_values(NAMES, 10)

    np.testing.assert_array_equal(hospitals.open(1, hospitals.mask(1, values)), add(values.values()))


def test_fewer_than_the_threshold_open_nothing() -> None:
    hospitals = Hospitals(threshold=4)
    hospitals.begin()
    total = hospitals.mask(0, draw_values(NAMES[:3], 10))

    with pytest.raises(SecureSumError, match="expected at least 4 hospitals in the sum, got 3"):
        hospitals.open(0, total)


def test_fewer_shares_than_the_threshold_open_nothing() -> None:
    hospitals = Hospitals(threshold=4)
    hospitals.begin()
    total = hospitals.mask(0, draw_values(NAMES, 10))

    with pytest.raises(SecureSumError, match="expected at least 4 of 32 bytes each, got 3"):
        hospitals.open(0, total, silent=NAMES[:2])


def test_masked_integers_tell_nothing_of_the_values() -> None:
    hospitals = Hospitals(3, threshold=2, rounds=2)
    hospitals.begin()
    zeros = {name: np.zeros(2**15, dtype=np.uint64) for name in hospitals.all}
    masked = [hospitals.all["east"].mask(round_, zeros["east"]) for round_ in range(2)]

    for one in masked:
        counts = np.bincount(one.view(np.uint8), minlength=256)
        expected = one.nbytes / 256
        assert ((counts - expected) ** 2 / expected).sum() < 350
    assert not (masked[0] == masked[1]).any()


def test_two_inputs_of_one_sum_give_masked_integers_of_one_distribution() -> None:
    """Over many sessions the masked answer's lowest byte is as uniform for one split of a sum as for another."""
    for value in (0, 41):
        seen = []
        for _ in range(300):
            hospitals = Hospitals(3, threshold=2, rounds=1)
            hospitals.begin()
            seen.append(int(hospitals.all["east"].mask(0, np.array([value], dtype=np.uint64))[0]) % 8)
        counts = np.bincount(seen, minlength=8)
        assert ((counts - 37.5) ** 2 / 37.5).sum() < 30  # 7 degrees of freedom: p = 1e-4


@pytest.mark.parametrize("n", [10, 50])
def test_many_hospitals(n: int) -> None:
    hospitals = Hospitals(n, threshold=n // 2 + 1, rounds=1)
    hospitals.begin()
    values = draw_values(sorted(hospitals.all)[2:], 10)

    np.testing.assert_array_equal(hospitals.open(0, hospitals.mask(0, values)), add(values.values()))
