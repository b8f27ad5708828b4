from itertools import permutations
from math import comb

import numpy as np
import pytest
import torch

from shared_model.model.fusion import MultimodalModel
from shared_model.shapley.game import FusionGame, ModalityGame, Rows, modality_game
from shared_model.shapley.owen import ColumnGroups, InnerPlayers, OwenValues, owen_values
from tests.shared_model.shapley.small_games import explain, fuse, lacking, make_model, make_rows

NAME = "e1"  # the modality that is looked into; e0 and e2 are the others


def setting(
    width: int, *, n_background: int = 5, fusion: str = "early", absent: float = 0.0
) -> tuple[MultimodalModel, Rows, Rows]:
    model = make_model((2, width, 3), fusion=fusion, head="8,4")
    return model, make_rows(model, 1, seed=4, absent=0.0), make_rows(model, n_background, seed=6, absent=absent)


def inner_game(model: MultimodalModel, patient: Rows, background: Rows) -> ModalityGame:
    game = FusionGame(model)
    return modality_game(
        game,
        NAME,
        patient=patient,
        background=background,
        patient_parts=game.contributions(patient)[0],
        background_parts=game.contributions(background),
    )


def columns_as_players(model: MultimodalModel, patient: Rows, background: Rows) -> tuple[ModalityGame, ColumnGroups]:
    """Each column of the modality's embedding is a player."""
    modality, game = inner_game(model, patient, background), FusionGame(model)
    players = ColumnGroups(
        [(i,) for i in range(model.widths[NAME])],
        projection=game.projection(NAME),
        own=game.fused_input(patient, NAME)[0],
        reference=game.fused_input(background, NAME),
        start=modality.reference,
    )
    return modality, players


def share_out(
    model: MultimodalModel, patient: Rows, background: Rows, *, rounds: int = 2, seed: int = 0, **stop: float
) -> OwenValues:
    modality, players = columns_as_players(model, patient, background)
    rng = np.random.default_rng(seed)
    if stop:
        return owen_values(modality, players, rng=rng, max_rounds=rounds, **stop)  # type: ignore[arg-type]
    return owen_values(modality, players, rng=rng, min_rounds=rounds, max_rounds=rounds)


def inner_values(model: MultimodalModel, patient: Rows, background: Rows) -> np.ndarray:
    """Value of each set of columns of NAME (bit mask): g_m by fusing hybrids, mean over background rows."""
    width, n = model.widths[NAME], len(background)
    inside = torch.tensor([[mask >> i & 1 for i in range(width)] for mask in range(2**width)], dtype=torch.bool)
    inside = inside.repeat_interleave(n, dim=0)
    rows = background.select(torch.arange(n).repeat(2**width))
    own = patient.select(torch.zeros(len(rows), dtype=torch.int64))
    mixed = torch.where(inside, own.embeddings[NAME], rows.embeddings[NAME])
    others = [name for name in model.modalities if name != NAME]
    total = torch.zeros(len(rows), dtype=torch.float64)
    for mask in range(2 ** len(others)):
        members = {name for i, name in enumerate(others) if mask >> i & 1}
        chosen = {name: own if name in members else rows for name in others}
        hybrid = Rows(
            {NAME: mixed} | {name: source.embeddings[name] for name, source in chosen.items()},
            {NAME: torch.ones(len(rows), dtype=torch.bool)}
            | {name: source.present[name] for name, source in chosen.items()},
        )
        n_players, size = len(others) + 1, len(members)
        total += fuse(model, hybrid) / (n_players * comb(n_players - 1, size))
    return total.reshape(2**width, n).mean(dim=1).numpy()


def enumerate_players(values: np.ndarray) -> np.ndarray:
    """Shapley values by enumeration of all coalitions."""
    n = len(values).bit_length() - 1
    masks = np.arange(2**n)
    sizes = np.array([int(mask).bit_count() for mask in masks])
    phi = np.zeros(n)
    for i in range(n):
        without = masks[(masks >> i) & 1 == 0]
        weights = 1 / (n * np.array([comb(n - 1, int(size)) for size in sizes[without]]))
        phi[i] = (weights * (values[without | 1 << i] - values[without])).sum()
    return phi


# ---------------------------------------------------------------------------------------------------------- exact sums


@pytest.mark.parametrize("fusion", ["early", "late"])
@pytest.mark.parametrize("absent", [0.0, 0.4])
@pytest.mark.parametrize("width", [2, 6])
def test_features_and_presence_sum_to_the_exact_value_of_the_modality(width: int, absent: float, fusion: str) -> None:
    model, patient, background = setting(width, n_background=9, fusion=fusion, absent=absent)

    found = share_out(model, patient, background)

    exact = explain(model, patient, background).phi[0, 1]
    assert found.phi.sum() + found.presence == pytest.approx(exact, abs=1e-12)
    assert (found.presence != 0) == (absent > 0)


def test_game_of_a_modality_gives_its_exact_value_against_each_row() -> None:
    model, patient, background = setting(3, absent=0.4)

    found = inner_game(model, patient, background).values()

    rows = [explain(model, patient, background.select(slice(b, b + 1))).phi[0, 1] for b in range(len(background))]
    np.testing.assert_allclose(found.numpy(), rows, atol=1e-12)


def test_row_without_the_modality_goes_to_presence_only() -> None:
    model, patient, background = setting(6)
    background = lacking(background, NAME, slice(0, 2))

    found = share_out(model, patient, background)

    with_it = share_out(model, patient, background.select(slice(2, 5)))
    np.testing.assert_allclose(found.phi, with_it.phi * 3 / 5, atol=1e-12)  # the same orders, three rows of five
    without = explain(model, patient, background.select(slice(0, 2))).phi[0, 1]
    assert found.presence == pytest.approx(without * 2 / 5, abs=1e-12)
    assert with_it.presence == 0.0


def test_patient_without_the_modality_has_presence_only() -> None:
    model, patient, background = setting(6, absent=0.4)
    patient = lacking(patient, NAME)

    found = share_out(model, patient, background)

    np.testing.assert_array_equal(found.phi, np.zeros(6))
    np.testing.assert_array_equal(found.se, np.zeros(6))
    assert found.presence == pytest.approx(explain(model, patient, background).phi[0, 1], abs=1e-12)
    assert found.orders == 0


def test_only_player_gets_the_exact_value_without_sampling() -> None:
    model, patient, background = setting(1)

    found = share_out(model, patient, background)

    assert found.phi == pytest.approx(explain(model, patient, background).phi[0, [1]], abs=1e-12)
    assert (found.se.tolist(), found.orders, found.presence) == ([0.0], 0, 0.0)


def test_player_that_does_not_differ_from_the_background_gets_nothing() -> None:
    model, patient, background = setting(6)
    background.embeddings[NAME][:, 2] = patient.embeddings[NAME][0, 2]

    found = share_out(model, patient, background)

    assert found.phi[2] == pytest.approx(0.0, abs=1e-14)
    assert (np.abs(np.delete(found.phi, 2)) > 1e-6).all()


def test_linear_head_gives_each_player_its_weight_times_the_distance_in_one_round() -> None:
    model = make_model((2, 6, 3), head="")
    patient, background = make_rows(model, 1, seed=4, absent=0.0), make_rows(model, 5, seed=6, absent=0.0)

    found = share_out(model, patient, background)

    weight = dict(model.named_parameters())["head.linear.weight"].detach().double()[0, 2:8]
    distance = patient.embeddings[NAME][0].double() - background.embeddings[NAME].double().mean(dim=0)
    np.testing.assert_allclose(found.phi, weight * distance, atol=1e-12)
    np.testing.assert_allclose(found.se, 0.0, atol=1e-7)


# --------------------------------------------------------------------------------------------------------- convergence


@pytest.mark.parametrize("absent", [0.0, 0.4])
def test_many_rounds_converge_to_the_mean_over_all_orders(absent: float) -> None:
    model, patient, background = setting(6, n_background=4, absent=absent)

    found = share_out(model, patient, background, rounds=250)

    here = background.select(background.present[NAME])
    values = inner_values(model, patient, here) * len(here) / len(background)
    exact = np.zeros(6)
    orders = list(permutations(range(6)))
    for order in orders:
        masks = np.cumsum([0, *(1 << i for i in order)])
        exact[list(order)] += np.diff(values[masks]) / len(orders)
    np.testing.assert_allclose(exact, enumerate_players(values), atol=1e-12)  # the two references agree
    assert (np.abs(found.phi - exact) < 4.5 * found.se).all()
    assert np.abs(found.phi - exact).mean() < 0.01 * np.abs(exact).mean()


@pytest.mark.parametrize("seed", range(3))
def test_sixteen_pairs_of_orders_are_within_three_percent_of_enumeration_for_fourteen_players(seed: int) -> None:
    model, patient, background = setting(14, n_background=3)

    found = share_out(model, patient, background, rounds=16, seed=seed)

    exact = enumerate_players(inner_values(model, patient, background))
    error = np.abs(found.phi - exact).mean() / np.abs(exact).mean()
    assert found.orders == 32
    assert 0.001 < error < 0.03  # from below: of a head that is all but linear, any order would do


@pytest.mark.parametrize("rounds", [2, 4])
def test_reported_standard_error_is_honest(rounds: int) -> None:
    model, patient, background = setting(8, n_background=20)
    exact = enumerate_players(inner_values(model, patient, background))

    found = [share_out(model, patient, background, rounds=rounds, seed=seed) for seed in range(60)]

    error = np.array([values.phi for values in found]) - exact
    se = np.array([values.se for values in found])
    assert (np.abs(error) < 3 * se).mean() > 0.97
    ratio = np.sqrt(np.square(error).mean(axis=0)) / se.mean(axis=0)
    assert ((ratio > 0.7) & (ratio < 1.4)).all(), ratio
    np.testing.assert_allclose(error.mean(axis=0), 0.0, atol=4 * se.mean() / np.sqrt(60))  # no bias


# -------------------------------------------------------------------------------------------------- rounds, chunks, rng


def test_same_generator_gives_the_same_result() -> None:
    model, patient, background = setting(6)
    first, again, other = (share_out(model, patient, background, seed=seed) for seed in (3, 3, 4))

    np.testing.assert_array_equal(first.phi, again.phi)
    np.testing.assert_array_equal(first.se, again.se)
    assert not np.array_equal(first.phi, other.phi)


def test_size_of_a_chunk_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, patient, background = setting(6)
    whole = share_out(model, patient, background)

    monkeypatch.setattr("shared_model.shapley.owen._CHUNK", 1)
    found = share_out(model, patient, background)

    np.testing.assert_allclose(found.phi, whole.phi, atol=1e-13)
    np.testing.assert_allclose(found.se, whole.se, atol=1e-9)


def test_rounds_stop_when_the_error_is_small_enough() -> None:
    model, patient, background = setting(6)

    found = share_out(model, patient, background, rounds=200, tolerance=0.01)

    assert 4 < found.orders < 400
    assert found.se.max() <= 0.01 * np.abs(found.phi).mean()


def test_rounds_stop_at_their_limit_and_say_what_was_reached() -> None:
    model, patient, background = setting(6)

    found = share_out(model, patient, background, rounds=3, tolerance=1e-9)

    assert found.orders == 6
    assert found.se.max() > 1e-9 * np.abs(found.phi).mean()


def test_one_round_has_no_standard_error() -> None:
    model, patient, background = setting(6)

    found = share_out(model, patient, background, rounds=1)

    assert np.isnan(found.se).all()
    assert found.orders == 2


def test_group_of_columns_gets_what_its_columns_change_together() -> None:
    model, patient, background = setting(4)
    modality, game = inner_game(model, patient, background), FusionGame(model)
    groups = ColumnGroups(
        [(2, 0), (1, 3)],
        projection=game.projection(NAME),
        own=game.fused_input(patient, NAME)[0],
        reference=game.fused_input(background, NAME),
        start=modality.reference,
    )

    found = owen_values(modality, groups, rng=np.random.default_rng(0))

    v = inner_values(model, patient, background)
    first, both = v[0b0101] - v[0], v[0b1111] - v[0]
    expected = (first + both - (v[0b1010] - v[0])) / 2  # two players have two orders, and a pair is both of them
    np.testing.assert_allclose(found.phi, [expected, both - expected], atol=1e-12)
    assert isinstance(groups, InnerPlayers)
