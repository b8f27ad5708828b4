"""The coordinator's Newton step for a linear head: one round a step, half a step back where the loss has risen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from server.strategy import RoundTotal, Strategy
from shared_model.newton import GRADIENT, HEAD_BIAS, HEAD_WEIGHT, HESSIAN, unpack_hessian
from shared_model.updates import Weights

_ACCEPTED, _DIRECTION, _STEP, _OBJECTIVE, _ANSWERED = "accepted", "direction", "step", "objective", "answered"
_LEAST_GAIN = 1e-12  # of the summed loss: below it the weights are the optimum as float32 can say it
_ROUNDING = 1e-6  # of the summed loss: fixed point and float32 weights
_RANK = 1e-8  # directions that hardly change the loss next to others (a column that is zero everywhere) are left alone


class NewtonStep(Strategy):
    """Minimises summed log loss + penalty / 2 * ||w||^2 over the hospitals that answer, the intercept not penalised.

    The loss of a step is known only with the next round's answers. If it rose, the next weights are half as far from
    the last good ones (damped Newton, Boyd and Vandenberghe 2004, section 9.5). Losses of different hospitals cannot be
    compared: where others answered than in the round before, the step is taken as good.
    """

    def __init__(self, *, penalty: float, state: Mapping[str, np.ndarray] | None = None) -> None:
        """The penalty is that of the setting `head-penalty`."""
        super().__init__(state)
        self._penalty = penalty

    def advance(self, weights: Weights, total: RoundTotal) -> dict[str, np.ndarray]:
        """The head after a Newton step, or half the step before; all other weights as they are."""
        head = np.append(weights[HEAD_WEIGHT][0], weights[HEAD_BIAS]).astype(np.float64)
        penalty = np.append(np.full(len(head) - 1, self._penalty), 0.0)
        objective = float(total.sums["train-loss-sum"] + penalty @ np.square(head) / 2)
        if self._rose(objective, total.answered):
            self.state[_STEP] = self.state[_STEP] / 2
        else:
            gradient = total.sums[GRADIENT] + penalty * head
            hessian = unpack_hessian(total.sums[HESSIAN], len(head)) + np.diag(penalty)
            self.state |= {
                _ACCEPTED: head,
                _DIRECTION: newton_direction(gradient, hessian),
                _STEP: np.array(1.0),
                _OBJECTIVE: np.array(objective),
                _ANSWERED: _as_array(total.answered),
            }
        moved = (self.state[_ACCEPTED] + self.state[_STEP] * self.state[_DIRECTION]).astype(np.float32)
        return {**weights, HEAD_WEIGHT: moved[None, :-1], HEAD_BIAS: moved[-1:]}

    def _rose(self, objective: float, answered: Sequence[str]) -> bool:
        before = self.state.get(_OBJECTIVE)
        if before is None or not np.array_equal(self.state[_ANSWERED], _as_array(answered)):
            return False
        return objective > float(before) + _ROUNDING


def newton_direction(
    gradient: Float64[np.ndarray, "n"], hessian: Float64[np.ndarray, "n n"]
) -> Float64[np.ndarray, "n"]:
    """The step to the minimum of the quadratic model, shortest where there are several; zero at the optimum."""
    direction = -np.linalg.lstsq(hessian, gradient, rcond=_RANK)[0]
    gain = -float(gradient @ direction) / 2
    return np.asarray(direction if gain > _LEAST_GAIN else np.zeros_like(direction))


def _as_array(names: Sequence[str]) -> np.ndarray:
    return np.frombuffer("\n".join(sorted(names)).encode(), dtype=np.uint8)
