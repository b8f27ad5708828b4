from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float64
from scipy.stats import kendalltau

from server.agreement.rank_agreement import Overlap, kendall_w, rank_scores, tau_b


def ranking(items: str, universe: str) -> Float64[np.ndarray, "item"]:
    """Ranks of the universe's letters in a string of letters, the first one first."""
    return np.array([items.index(item) + 1.0 if item in items else np.inf for item in universe])


def rbo(first: str, second: str) -> float:
    universe = "".join(sorted({*first, *second}))
    return float(Overlap.of(ranking(first, universe), ranking(second, universe)).rank_biased(0.9))


@pytest.mark.parametrize("items", ["a", "abc", "abcdefghij"])
def test_rank_biased_overlap_of_a_ranking_with_itself_is_1(items: str) -> None:
    assert rbo(items, items) == pytest.approx(1.0)


def test_rank_biased_overlap_of_disjoint_rankings_is_0() -> None:
    assert rbo("abc", "defgh") == 0.0


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # Agreement 1, 1/2, 1: (0.9 + 0.81 / 2 + 0.729) / 9 + 0.729.
        ("abc", "acb", 0.955),
        # Agreement 0, 1/2, 1.
        ("abc", "cba", 0.855),
        # Agreement 0, 1/2, 2/3, 1, 1; the same number is printed by github.com/b4ny4n/rankmeasures.
        ("abcde", "bcdae", 0.828),
        # Agreement 1, 1/2, then (2 + 1/2) / 3: half of the seen items agree, so half of a further one would.
        ("ab", "acb", 0.82),
        ("acb", "ab", 0.82),
    ],
)
def test_rank_biased_overlap_equals_the_sum_by_hand(first: str, second: str, expected: float) -> None:
    assert rbo(first, second) == pytest.approx(expected)


def test_rank_biased_overlap_is_1_when_the_expert_ranks_the_first_items_of_the_run() -> None:
    assert rbo("abc", "abcdefg") == pytest.approx(1.0)


def test_agreement_by_depth_equals_the_papers_example() -> None:
    # Webber, Moffat and Zobel 2010: <a b c d e f g> and <z c a v w x y>; average overlap at depth 7 is 0.312.
    universe = "abcdefgzvwxy"
    agreement = Overlap.of(ranking("abcdefg", universe), ranking("zcavwxy", universe)).agreement

    np.testing.assert_allclose(agreement, [0, 0, 2 / 3, 1 / 2, 2 / 5, 1 / 3, 2 / 7])
    assert agreement.mean() == pytest.approx(0.312, abs=5e-4)


@given(st.permutations("abcdefgh"), st.permutations("abcdefgh"), st.integers(1, 8), st.integers(1, 8))
def test_rank_biased_overlap_equals_equation_32_of_the_paper(one: list[str], two: list[str], m: int, n: int) -> None:
    short, long = sorted(("".join(one[:m]), "".join(two[:n])), key=len)
    s, length, p = len(short), len(long), 0.9
    x = [0, *(len({*short[:d]} & {*long[:d]}) for d in range(1, length + 1))]
    first = sum(x[d] / d * p**d for d in range(1, length + 1))
    second = sum(x[s] * (d - s) / (s * d) * p**d for d in range(s + 1, length + 1))
    last = ((x[length] - x[s]) / length + x[s] / s) * p**length

    assert rbo(short, long) == pytest.approx((1 - p) / p * (first + second) + last)


def test_rank_biased_overlap_counts_every_tied_item_at_the_first_of_their_ranks() -> None:
    # <(a b) c> and <a b c>: agreement 2 * 1 / (2 + 1), 2 * 2 / (2 + 2), 1.
    overlap = Overlap.of(np.array([1.0, 1.0, 3.0]), np.array([1.0, 2.0, 3.0]))

    assert float(overlap.rank_biased(0.9)) == pytest.approx((0.9 * 2 / 3 + 0.81 + 0.729) / 9 + 0.729)


def test_overlap_by_chance_is_the_mean_over_all_orders() -> None:
    expert = np.array([1.0, 1.0, 3.0, np.inf, np.inf])
    orders = np.array(list(permutations(np.arange(1.0, 6.0))))
    all_orders, chance = Overlap.of(expert, orders), Overlap.of(expert, orders[0]).by_chance(5)

    assert float(chance.rank_biased()) == pytest.approx(all_orders.rank_biased().mean())
    assert float(chance.at_top(2)) == pytest.approx(all_orders.at_top(2).mean())


def test_overlap_at_the_top_is_the_part_of_the_first_items_in_both() -> None:
    assert float(Overlap.of(ranking("abcd", "abcd"), ranking("adbc", "abcd")).at_top(2)) == 0.5


def test_overlap_refuses_an_empty_ranking() -> None:
    with pytest.raises(ValueError, match="empty ranking"):
        Overlap.of(np.array([np.inf, np.inf]), np.array([1.0, 2.0]))


def test_rank_scores_puts_the_largest_first_and_leaves_out_what_has_no_score() -> None:
    np.testing.assert_array_equal(rank_scores(np.array([2.0, 5.0, 2.0, np.nan, 1.0])), [2, 1, 2, np.inf, 4])


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1, 2, 3], [1, 3, 2], 1 / 3),  # pairs: 2 alike, 1 reversed
        ([1, 1, 3], [1, 2, 3], 2 / np.sqrt(2 * 3)),  # 2 alike, 1 tied in the first ranking
        ([1, 2, 3, np.inf], [4, 3, 2, 1], -1.0),  # the item that only one of them ranks does not count
    ],
)
def test_tau_b_equals_the_count_of_pairs_by_hand(first: list[float], second: list[float], expected: float) -> None:
    assert float(tau_b(np.array(first, float), np.array(second, float))) == pytest.approx(expected)


def test_tau_b_of_many_rankings_equals_scipy_on_each() -> None:
    rng = np.random.default_rng(1)
    first, many = rank_scores(rng.integers(0, 4, 9).astype(float)), rank_scores(rng.normal(size=(5, 9)))

    np.testing.assert_allclose(tau_b(first, many), [kendalltau(first, row).statistic for row in many])


def test_tau_b_is_not_defined_when_all_items_are_tied() -> None:
    assert np.isnan(tau_b(np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0])))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([[3, 2, 1], [3, 1, 2]], 0.75),  # rank sums 2, 5, 5: 12 * 6 / (4 * 24)
        ([[3, 3, 1], [3, 2, 1]], 78 / 84),  # rank sums 2.5, 3.5, 6: 12 * 6.5 / (4 * 24 - 2 * 6)
        ([[9, 5, 1], [3, 2, 1], [7, 6, 0]], 1.0),
        ([[2, 1, 0], [0, 1, 2]], 0.0),
    ],
)
def test_kendall_w_equals_the_value_by_hand(scores: list[list[float]], expected: float) -> None:
    assert kendall_w(np.array(scores, float)) == pytest.approx(expected)


def test_kendall_w_is_not_defined_when_every_expert_ties_all_items() -> None:
    assert np.isnan(kendall_w(np.ones((2, 4))))
