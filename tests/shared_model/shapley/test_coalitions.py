from fractions import Fraction

import numpy as np
import pytest

from shared_model.shapley.coalitions import (
    coalition_members,
    interaction_matrix,
    shapley_matrix,
    shapley_weights,
)

SIZES = range(1, 8)


def value_of_masks(n: int, winning: set[int]) -> np.ndarray:
    return np.array([float(mask in winning) for mask in range(2**n)])


def test_bit_i_of_a_coalition_is_player_i() -> None:
    assert coalition_members(2).tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]


def test_nobody_has_one_coalition_the_empty_one() -> None:
    assert coalition_members(0).shape == (1, 0)


def test_weights_of_three_players_are_a_third_a_sixth_and_a_third() -> None:
    assert shapley_weights(3).tolist() == [float(Fraction(1, 3)), float(Fraction(1, 6)), float(Fraction(1, 3))]


@pytest.mark.parametrize("n", SIZES)
def test_weights_of_all_coalitions_without_a_player_sum_to_one(n: int) -> None:
    sizes = coalition_members(n - 1).sum(axis=1)
    assert shapley_weights(n)[sizes].sum() == pytest.approx(1.0, abs=1e-12)


def test_values_of_the_glove_game_are_two_thirds_and_a_sixth_each() -> None:
    """One left glove (player 0), two right ones; a pair is worth 1. Shapley: 2/3, 1/6, 1/6."""
    pairs = value_of_masks(3, {0b011, 0b101, 0b111})
    np.testing.assert_allclose(shapley_matrix(3) @ pairs, [2 / 3, 1 / 6, 1 / 6], atol=1e-15)


def test_only_player_gets_the_whole_difference() -> None:
    np.testing.assert_allclose(shapley_matrix(1) @ np.array([2.0, 5.0]), [3.0])


@pytest.mark.parametrize("n", SIZES)
def test_values_sum_to_the_grand_coalition_less_the_empty_one(n: int) -> None:
    values = np.random.default_rng(n).normal(size=2**n)
    assert (shapley_matrix(n) @ values).sum() == pytest.approx(values[-1] - values[0], abs=1e-12)


@pytest.mark.parametrize("n", SIZES)
def test_additive_game_gives_each_player_its_own_worth(n: int) -> None:
    worth = np.random.default_rng(n).normal(size=n)
    np.testing.assert_allclose(shapley_matrix(n) @ (coalition_members(n) @ worth), worth, atol=1e-12)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_players_of_an_additive_game_do_not_interact(n: int) -> None:
    worth = np.random.default_rng(n).normal(size=n)
    interactions = np.einsum("ijc,c->ij", interaction_matrix(n), coalition_members(n) @ worth)
    np.testing.assert_allclose(interactions, 0.0, atol=1e-12)


def test_pair_that_is_needed_together_interacts_by_its_worth() -> None:
    """Unanimity game of players 0 and 1: I = 1 for that pair, 0 for the others (Grabisch and Roubens 1999)."""
    together = value_of_masks(3, {0b011, 0b111})
    interactions = np.einsum("ijc,c->ij", interaction_matrix(3), together)
    np.testing.assert_allclose(interactions, [[0, 1, 0], [1, 0, 0], [0, 0, 0]], atol=1e-15)


def test_three_needed_together_interact_by_half_a_pair() -> None:
    """Unanimity game of three: v(S+i+j) - v(S+i) - v(S+j) + v(S) is 1 for S = {k}, 0 for the empty S; weights 1/2."""
    interactions = np.einsum("ijc,c->ij", interaction_matrix(3), value_of_masks(3, {0b111}))
    np.testing.assert_allclose(interactions, 0.5 * (1 - np.eye(3)), atol=1e-15)


def test_one_player_has_nobody_to_interact_with() -> None:
    assert interaction_matrix(1).tolist() == [[[0.0, 0.0]]]


@pytest.mark.parametrize("n", [2, 4, 6])
def test_interactions_are_symmetric_with_a_zero_diagonal(n: int) -> None:
    interactions = np.einsum("ijc,c->ij", interaction_matrix(n), np.random.default_rng(n).normal(size=2**n))
    np.testing.assert_array_equal(interactions, interactions.T)
    np.testing.assert_array_equal(np.diag(interactions), 0.0)
