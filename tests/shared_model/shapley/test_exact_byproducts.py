from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch

from tests.shared_model.shapley.small_games import (
    assert_close,
    coalition_values,
    drawn,
    explain,
    fuse,
    mean_values,
    shapley_over_orders,
)


@pytest.mark.parametrize("fusion", ["early", "late"])
def test_interactions_are_those_of_the_definition(fusion: str) -> None:
    model, patients, background = drawn(5, fusion=fusion)
    v = mean_values(coalition_values(model, patients, background))

    found = explain(model, patients, background).interactions

    names = model.modalities
    for i, j in combinations(range(5), 2):
        rest = [name for k, name in enumerate(names) if k not in (i, j)]
        expected = np.zeros(len(patients))
        for size in range(4):
            for chosen in combinations(rest, size):
                s = frozenset(chosen)
                term = v[s | {names[i], names[j]}] - v[s | {names[i]}] - v[s | {names[j]}] + v[s]
                expected += term / (4 * comb(3, size))  # s! (5 - s - 2)! / (5 - 1)!
        assert_close(found[:, i, j], expected)
        assert_close(found[:, j, i], expected)


def test_interactions_are_those_of_shapiq() -> None:
    import shapiq  # noqa: PLC0415 - slow, and only this test needs it

    model, patients, background = drawn(5)
    v = mean_values(coalition_values(model, patients, background))
    names = model.modalities

    def value(coalitions: np.ndarray) -> np.ndarray:
        return np.array(
            [v[frozenset(name for name, there in zip(names, row, strict=True) if there)][0] for row in coalitions]
        )

    reference = shapiq.ExactComputer(value, 5)("SII", order=2)

    found = explain(model, patients, background).interactions[0]
    for i, j in combinations(range(5), 2):
        assert found[i, j] == pytest.approx(reference[(i, j)], abs=1e-10)


def test_phi_of_the_probability_sums_to_the_difference_of_calibrated_probabilities() -> None:
    model, patients, background = drawn(3)

    found = explain(model, patients, background, correction=-1.5)

    own = torch.sigmoid(fuse(model, patients) - 1.5).numpy()
    base = float(torch.sigmoid(fuse(model, background) - 1.5).mean())
    assert_close(found.phi_probability.sum(axis=1), own - base)
    assert_close(found.probability, own)
    assert found.base_probability == pytest.approx(base, abs=1e-12)


def test_phi_of_the_probability_is_that_of_the_game_of_probabilities() -> None:
    model, patients, background = drawn(3)
    logits = coalition_values(model, patients, background)
    values = mean_values({members: torch.sigmoid(value + 0.7) for members, value in logits.items()})

    found = explain(model, patients, background, correction=0.7).phi_probability

    assert_close(found, shapley_over_orders(values, model.modalities))


def test_correction_moves_logits_and_not_phi() -> None:
    model, patients, background = drawn(3)
    plain, moved = (explain(model, patients, background, correction=c) for c in (0.0, -2.0))

    assert_close(moved.logit, plain.logit - 2.0)
    assert moved.base_logit == pytest.approx(plain.base_logit - 2.0, abs=1e-12)
    np.testing.assert_array_equal(moved.phi, plain.phi)


def test_alone_and_left_out_are_differences_of_four_coalitions() -> None:
    model, patients, background = drawn(3)
    v = mean_values(coalition_values(model, patients, background))
    everybody = frozenset(model.modalities)

    found = explain(model, patients, background)

    for i, name in enumerate(model.modalities):
        assert_close(found.alone[:, i], v[frozenset({name})] - v[frozenset()])
        assert_close(found.left_out[:, i], v[everybody] - v[everybody - {name}])


def test_standard_error_of_the_background_is_the_spread_over_its_rows() -> None:
    model, patients, background = drawn(5)

    found = explain(model, patients, background)

    rows = [explain(model, patients, background.select(slice(b, b + 1))).phi for b in range(len(background))]
    np.testing.assert_allclose(found.se_background, np.std(rows, axis=0, ddof=1) / np.sqrt(7), atol=1e-8)


def test_present_says_who_has_what() -> None:
    model, patients, background = drawn(3)

    found = explain(model, patients, background).present

    np.testing.assert_array_equal(found, np.stack([patients.present[name] for name in model.modalities], axis=1))
    assert found.any()
    assert not found.all()
