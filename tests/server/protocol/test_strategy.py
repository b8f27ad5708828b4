"""Server steps by hand: algorithm 2 of Reddi et al. 2021, Adaptive Federated Optimization."""

import math

import numpy as np
import pytest

from server.protocol.strategy import build_strategy
from shared_model.config import Settings
from tests.server.small_cohort import small_settings

ETA, BETA_1, BETA_2, TAU = 0.1, 0.9, 0.99, 0.01


def _settings(strategy: str) -> Settings:
    return small_settings(
        strategy=strategy,
        server_learning_rate=ETA,
        server_beta_1=BETA_1,
        server_beta_2=BETA_2,
        server_tau=TAU,
    )


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox"])
def test_fedavg_adds_the_average_change(strategy: str) -> None:
    stepped = build_strategy(_settings(strategy), n_train=100).step(
        {"w": np.array([1.0, -2.0], dtype=np.float32)}, {"w": np.array([0.5, 0.25])}
    )

    np.testing.assert_array_equal(stepped["w"], np.array([1.5, -1.75], dtype=np.float32))
    assert stepped["w"].dtype == np.float32


@pytest.mark.parametrize("strategy", ["fedadam", "fedyogi"])
def test_adaptive_step_is_that_of_algorithm_2_over_two_rounds(strategy: str) -> None:
    optimiser = build_strategy(_settings(strategy), n_train=100)
    w = np.array([1.0], dtype=np.float32)

    first = optimiser.step({"w": w}, {"w": np.array([0.2])})["w"]
    second = optimiser.step({"w": first}, {"w": np.array([-0.1])})["w"]

    m1 = 0.1 * 0.2
    m2 = 0.9 * m1 + 0.1 * -0.1
    if strategy == "fedadam":
        v1 = 0.99 * TAU**2 + 0.01 * 0.04
        v2 = 0.99 * v1 + 0.01 * 0.01
    else:
        v1 = TAU**2 + 0.01 * 0.04  # v0 = 0.0001 < 0.04: the sign is negative, so v grows
        v2 = v1 + 0.01 * 0.01  # v1 = 0.0005 < 0.01 as well
    expected = 1.0 + ETA * m1 / (math.sqrt(v1) + TAU)
    assert first == pytest.approx(expected, rel=1e-6)
    assert second == pytest.approx(expected + ETA * m2 / (math.sqrt(v2) + TAU), rel=1e-6)


def test_fedyogi_lets_the_second_moment_fall_by_the_square_of_a_small_change() -> None:
    optimiser = build_strategy(_settings("fedyogi"), n_train=100)

    optimiser.step({"w": np.ones(1, dtype=np.float32)}, {"w": np.array([0.001])})

    # v0 = 1e-4 > 1e-6: v1 = v0 - 0.01 * 1e-6; Adam's would be 0.99 * 1e-4 + 1e-8
    assert optimiser.state["w/v"] == pytest.approx(1e-4 - 1e-8, rel=1e-12)


@pytest.mark.parametrize("strategy", ["fedadam", "fedyogi"])
def test_adaptive_step_continues_from_its_state_as_if_never_stopped(strategy: str) -> None:
    settings, w = _settings(strategy), {"w": np.ones(3, dtype=np.float32)}
    changes = [{"w": np.array([0.3, -0.2, 0.0])}, {"w": np.array([0.1, 0.1, -0.4])}]
    whole = build_strategy(settings, n_train=100)
    whole.step(w, changes[0])

    resumed = build_strategy(settings, n_train=100, state=whole.state)

    np.testing.assert_array_equal(resumed.step(w, changes[1])["w"], whole.step(w, changes[1])["w"])


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedyogi"])
def test_batch_norm_moments_are_replaced_and_never_optimised(strategy: str) -> None:
    names = ("bn1.running_mean", "bn1.running_var")
    optimiser = build_strategy(_settings(strategy), n_train=100)

    stepped = optimiser.step(
        {name: np.array([2.0], dtype=np.float32) for name in names}, {name: np.array([0.75]) for name in names}
    )

    assert [stepped[name].tolist() for name in names] == [[2.75], [2.75]]
    assert not optimiser.state


def test_adaptive_step_does_not_move_when_nothing_changed() -> None:
    optimiser = build_strategy(_settings("fedadam"), n_train=100)

    stepped = optimiser.step({"w": np.array([3.0], dtype=np.float32)}, {"w": np.array([0.0])})

    assert stepped["w"].tolist() == [3.0]
