"""One Newton step, one penalty by evidence, and the end of the steps, by hand."""

import numpy as np
import pytest

from server.protocol.newton import NewtonStep, evidence_penalty, is_converged, newton_direction, settled_penalty
from server.protocol.strategy import RoundTotal
from shared_model.training.newton import GRADIENT, HEAD_BIAS, HEAD_WEIGHT, HESSIAN

NAMES = ("east", "north", "south")


def _total(loss: float, gradient: float, *, hessian: float = 1.0, answered: tuple[str, ...] = NAMES) -> RoundTotal:
    """One weight and an intercept that is where it should be."""
    sums = {
        "train-loss-sum": np.array(loss),
        GRADIENT: np.array([gradient, 0.0]),
        HESSIAN: np.array([hessian, 0.0, 1.0]),
    }
    return RoundTotal(sums, answered, 1)


def _head(weight: float) -> dict[str, np.ndarray]:
    return {
        HEAD_WEIGHT: np.array([[weight]], dtype=np.float32),
        HEAD_BIAS: np.zeros(1, dtype=np.float32),
        "absent.static": np.full(1, 7.0, dtype=np.float32),
    }


def test_step_is_the_penalised_gradient_over_the_penalised_hessian() -> None:
    stepped = NewtonStep(penalty=2.0).advance(_head(3.0), _total(10.0, 4.0, hessian=6.0))

    assert stepped[HEAD_WEIGHT].tolist() == [[3 - (4 + 2 * 3) / (6 + 2)]]
    assert stepped[HEAD_BIAS].tolist() == [0]
    assert stepped["absent.static"].tolist() == [7]


def test_step_is_halved_until_the_loss_no_longer_rises() -> None:
    newton = NewtonStep(penalty=0.0)
    far = newton.advance(_head(0.0), _total(10.0, 8.0))

    half = newton.advance(far, _total(11.0, 99.0))
    quarter = newton.advance(half, _total(10.5, 99.0))
    onwards = newton.advance(quarter, _total(9.0, 1.0))

    assert [float(weights[HEAD_WEIGHT][0, 0]) for weights in (far, half, quarter, onwards)] == [-8, -4, -2, -3]


def test_penalty_counts_in_whether_the_loss_rose() -> None:
    """From 0 to -2 the log loss falls by 1, and a penalty of 2 on 4 adds 4."""
    newton = NewtonStep(penalty=2.0)
    far = newton.advance(_head(0.0), _total(10.0, 6.0))

    assert far[HEAD_WEIGHT].tolist() == [[-2]]
    assert newton.advance(far, _total(9.0, 99.0))[HEAD_WEIGHT].tolist() == [[-1]]


def test_converged_is_a_step_without_gain_at_the_hospitals_of_the_step_before() -> None:
    newton = NewtonStep(penalty=0.0)
    states = []
    for answered in (NAMES, NAMES, NAMES[:2], NAMES[:2]):
        newton.advance(_head(1.0), _total(10.0, 1e-5, hessian=1.0, answered=answered))  # 5e-11 of a loss of 10
        states.append(is_converged(newton.state))
    assert states == [False, True, False, True]

    newton.advance(_head(1.0), _total(10.0, 1e-4, answered=NAMES[:2]))  # 5e-9
    assert not is_converged(newton.state)


def test_step_back_has_not_converged() -> None:
    newton = NewtonStep(penalty=0.0)
    far = newton.advance(_head(0.0), _total(10.0, 8.0))
    newton.advance(far, _total(11.0, 0.0))
    assert not is_converged(newton.state)


def test_penalty_that_would_hardly_move_stays_as_it_is() -> None:
    """One weight at the fixed point of its evidence but for less than 0.1 %."""
    head, curvature = np.array([0.5, 0.0]), np.diag([4.0, 9.0])
    near = np.array([20**0.5 - 2, 0.0]) * 1.0001  # penalty * 0.25 = 4 / (4 + penalty)
    at_its_optimum = -near * head  # a gradient that the penalty cancels
    found = settled_penalty(head, at_its_optimum, curvature, near, groups=[slice(0, 1)])
    assert found.tolist() == near.tolist()


def test_losses_of_different_hospitals_are_not_compared() -> None:
    newton = NewtonStep(penalty=0.0)
    far = newton.advance(_head(0.0), _total(10.0, 8.0, answered=("east", "north")))

    assert newton.advance(far, _total(99.0, 1.0))[HEAD_WEIGHT].tolist() == [[-9]]


def test_direction_leaves_a_column_alone_that_is_zero_everywhere() -> None:
    found = newton_direction(np.array([2.0, 0.0]), np.diag([4.0, 0.0]))

    assert found.tolist() == pytest.approx([-0.5, 0.0])
    assert newton_direction(np.array([1e-7, 0.0]), np.diag([4.0, 1.0])).tolist() == [0, 0]  # at the optimum


def test_penalties_by_evidence_are_the_fixed_point_of_mackay() -> None:
    """One group of one weight, by hand: curvature 4 and penalty 2 decide 4 / 6 of it."""
    found = evidence_penalty(np.array([0.5, -1.0]), np.diag([4.0, 9.0]), np.array([2.0, 0.0]), groups=[slice(0, 1)])
    assert found.tolist() == pytest.approx([(4 / 6) / 0.25, 0.0])


def test_group_at_zero_keeps_its_penalty_and_none_leaves_its_range() -> None:
    head = np.array([0.0, 1e-9, 1e3, 2.0])
    groups = [slice(0, 1), slice(1, 2), slice(2, 3)]
    found = evidence_penalty(head, np.eye(4), np.array([70.0, 70.0, 70.0, 0.0]), groups=groups)
    assert found.tolist() == [70.0, 1e5, 1.0, 0.0]


def test_without_groups_the_given_penalty_stays() -> None:
    penalty = np.array([70.0, 0.0])
    assert settled_penalty(np.array([3.0, 1.0]), np.ones(2), np.eye(2), penalty, groups=[]) is penalty


def test_settled_penalties_are_a_fixed_point_from_whatever_they_start() -> None:
    rng = np.random.default_rng(0)
    inputs = np.concatenate([rng.normal(size=(600, 6)), np.ones((600, 1))], axis=1)
    outcome = (rng.random(600) < 1 / (1 + np.exp(-inputs[:, :3].sum(axis=1) / 2))).astype(float)
    gradient, curvature, head = inputs.T @ (0.5 - outcome), inputs.T @ inputs / 4, np.zeros(7)
    groups = [slice(0, 3), slice(3, 6)]
    found = [
        settled_penalty(head, gradient, curvature, np.append(np.full(6, start), 0.0), groups=groups)
        for start in (1.0, 70.0, 5000.0)
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=0.05)
    np.testing.assert_allclose(found[2], found[0], rtol=0.05)
    ahead = head + newton_direction(gradient + found[0] * head, curvature + np.diag(found[0]))
    again = evidence_penalty(ahead, curvature, found[0], groups=groups)
    np.testing.assert_allclose(again, found[0], rtol=5e-3)
    assert found[0][0] < found[0][3]
