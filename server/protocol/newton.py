"""The coordinator's Newton step for a linear head: one round a step, half a step back where the loss has risen."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64
from scipy.linalg import lapack

from server.protocol.strategy import RoundTotal, Strategy
from shared_model.training.newton import GRADIENT, HEAD_BIAS, HEAD_WEIGHT, HESSIAN, unpack_hessian
from shared_model.training.updates import Weights

_ACCEPTED, _DIRECTION, _STEP, _OBJECTIVE, _ANSWERED = "accepted", "direction", "step", "objective", "answered"
_PENALTY, _CONVERGED = "penalty", "converged"
_MOST_UPDATES, _SETTLED = 200, 1e-3
PENALTY_RANGE = (1.0, 1e5)  # from a prior that hardly binds to one that leaves a standardised weight at some 0.003
_CONVERGED_GAIN = 1e-10  # of the summed loss: the step that is expected to gain less is the last one
_LEAST_GAIN = 1e-12  # of the summed loss: below it the weights are the optimum as float32 can say it
_ROUNDING = 1e-6  # of the summed loss: fixed point and float32 weights
_RANK = 1e-8  # directions that hardly change the loss next to others (a column that is zero everywhere) are left alone


class NewtonStep(Strategy):
    """Minimises summed log loss + penalty / 2 * ||w||^2 over the hospitals that answer, the intercept not penalised.

    The loss of a step is known only with the next round's answers. If it rose, the next weights are half as far from
    the last good ones (damped Newton, Boyd and Vandenberghe 2004, section 9.5). Losses of different hospitals cannot be
    compared: where others answered than in the round before, the step is taken as good.

    With groups, each group of weights gets a penalty of its own: at every step the one that makes the data most
    probable as far as the step's quadratic model goes (`settled_penalty`). The loss is then that with new penalties.

    Converged is a whole step that is expected to gain less than 1e-10 of the summed loss (half the squared Newton
    decrement, ibid., section 9.5.1) while the penalties stay as they were and the same hospitals answer as at the step
    before. Newton's steps shrink quadratically, so what further rounds would change is below what float32 weights show.
    """

    def __init__(
        self,
        *,
        penalty: float,
        groups: Sequence[slice] = (),
        state: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """A step at the first round of a phase, or from a checkpoint's state.

        Args:
            penalty: of every weight, or what the groups' penalties start from.
            groups: weights that share a penalty; none = all keep the given one.
            state: of a checkpoint.
        """
        super().__init__(state)
        self._penalty, self._groups = penalty, groups

    def advance(self, weights: Weights, total: RoundTotal) -> dict[str, np.ndarray]:
        """The head after a Newton step, or half the step before; all other weights as they are."""
        head = np.append(weights[HEAD_WEIGHT][0], weights[HEAD_BIAS]).astype(np.float64)
        penalty = self.state.get(_PENALTY, np.append(np.full(len(head) - 1, self._penalty), 0.0))
        loss = float(total.sums["train-loss-sum"])
        objective = loss + float(penalty @ np.square(head)) / 2
        if self._rose(objective, total.answered):
            self.state[_STEP] = np.asarray(self.state[_STEP] / 2)
        else:
            curvature = unpack_hessian(total.sums[HESSIAN], len(head))
            settled = settled_penalty(head, total.sums[GRADIENT], curvature, penalty, groups=self._groups)
            gradient = total.sums[GRADIENT] + settled * head
            direction = newton_direction(gradient, curvature + np.diag(settled))
            gain = -float(gradient @ direction) / 2
            stays = np.array_equal(settled, penalty) and self._same_answered(total.answered)
            self.state |= {
                _ACCEPTED: head,
                _DIRECTION: direction,
                _STEP: np.array(1.0),
                _PENALTY: settled,
                _OBJECTIVE: np.array(loss + float(settled @ np.square(head)) / 2),
                _ANSWERED: _as_array(total.answered),
                _CONVERGED: np.array(stays and gain <= _CONVERGED_GAIN * (1 + loss)),
            }
        moved = (self.state[_ACCEPTED] + self.state[_STEP] * self.state[_DIRECTION]).astype(np.float32)
        return {**weights, HEAD_WEIGHT: moved[None, :-1], HEAD_BIAS: moved[-1:]}

    @property
    def penalties(self) -> list[float]:
        """The penalty of each group at the last accepted step."""
        penalty = self.state.get(_PENALTY)
        return [] if penalty is None else [float(penalty[group.start]) for group in self._groups]

    def _rose(self, objective: float, answered: Sequence[str]) -> bool:
        if not self._same_answered(answered):
            return False
        return objective > float(self.state[_OBJECTIVE]) + _ROUNDING

    def _same_answered(self, answered: Sequence[str]) -> bool:
        """True if these hospitals made the last accepted step; not before the first."""
        return _ANSWERED in self.state and np.array_equal(self.state[_ANSWERED], _as_array(answered))


def is_converged(state: Mapping[str, np.ndarray]) -> bool:
    """True if the strategy of this state has nothing left to gain; never so of others than Newton's."""
    return bool(state.get(_CONVERGED, False))


def newton_direction(
    gradient: Float64[np.ndarray, "n"], hessian: Float64[np.ndarray, "n n"]
) -> Float64[np.ndarray, "n"]:
    """The step to the minimum of the quadratic model, shortest where there are several; zero at the optimum."""
    direction = -np.linalg.lstsq(hessian, gradient, rcond=_RANK)[0]
    gain = -float(gradient @ direction) / 2
    return np.asarray(direction if gain > _LEAST_GAIN else np.zeros_like(direction))


def settled_penalty(
    head: Float64[np.ndarray, "n"],
    gradient: Float64[np.ndarray, "n"],
    curvature: Float64[np.ndarray, "n n"],
    penalty: Float64[np.ndarray, "n"],
    *,
    groups: Sequence[slice],
) -> Float64[np.ndarray, "n"]:
    """`evidence_penalty` repeated until it stays, each time at the minimum of the quadratic model with that penalty.

    One update a round would come to rest after some ten rounds, or after hundreds where a group says nothing, and what
    a run shows would depend on when it stopped. Within the quadratic model it costs no further question. A penalty that
    would move by less than 0.1 % stays, so that it does not creep on for as many rounds as there are.

    Args:
        head: weights, then the intercept; where the model is expanded.
        gradient: of the summed log loss there.
        curvature: its Hessian there.
        penalty: to start from.
        groups: of weights; none = the penalty stays.
    """
    if not groups:
        return penalty
    for _ in range(_MOST_UPDATES):
        covariance = invert_hessian(curvature + np.diag(penalty))
        ahead = head - covariance @ (gradient + penalty * head)
        updated = _most_probable(ahead, covariance, penalty, groups=groups)
        if np.allclose(updated, penalty, rtol=_SETTLED):
            return penalty
        penalty = updated
    return penalty


def evidence_penalty(
    head: Float64[np.ndarray, "n"],
    curvature: Float64[np.ndarray, "n n"],
    penalty: Float64[np.ndarray, "n"],
    *,
    groups: Sequence[slice],
) -> Float64[np.ndarray, "n"]:
    """One step towards the penalties that make the data most probable, from sums that are there anyway.

    A penalty is the precision of a normal prior of its group's weights. In the Laplace approximation the evidence is
    largest where penalty = gamma / ||w||^2, with gamma = p - penalty * trace of the posterior covariance: how many of
    the group's p weights the data decide. A modality that says little gets a large penalty, and its noise does not pass
    for attribution.

    Source: MacKay 1992, Neural Computation 4:448, eq. 4.9 and section 6 (one constant for each class of weights).

    Args:
        head: weights, then the intercept.
        curvature: Hessian of the summed log loss there.
        penalty: present ones; 0 for the intercept.
        groups: of weights; a group whose weights are all zero, as at the start, keeps its penalty.
    """
    return _most_probable(head, invert_hessian(curvature + np.diag(penalty)), penalty, groups=groups)


def _most_probable(
    head: Float64[np.ndarray, "n"],
    covariance: Float64[np.ndarray, "n n"],
    penalty: Float64[np.ndarray, "n"],
    *,
    groups: Sequence[slice],
) -> Float64[np.ndarray, "n"]:
    adapted = penalty.copy()
    for group in groups:
        size = float(np.square(head[group]).sum())
        decided = float((1 - penalty[group] * np.diag(covariance)[group]).sum())
        if size > 0:
            adapted[group] = np.clip(decided / size, *PENALTY_RANGE)
    return adapted


def invert_hessian(hessian: Float64[np.ndarray, "n n"]) -> Float64[np.ndarray, "n n"]:
    """By Cholesky, a tenth of the time of a pseudo-inverse; that one where a direction changes nothing."""
    factor, fault = lapack.dpotrf(hessian, lower=1)
    if fault:
        return np.asarray(np.linalg.pinv(hessian, rcond=_RANK, hermitian=True))
    lower = np.tril(lapack.dpotri(factor, lower=1)[0])
    return np.asarray(lower + np.tril(lower, -1).T)


def _as_array(names: Sequence[str]) -> np.ndarray:
    return np.frombuffer("\n".join(sorted(names)).encode(), dtype=np.uint8)
