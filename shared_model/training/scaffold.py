"""SCAFFOLD (Karimireddy et al. 2020, ICML, algorithm 1, option II): local steps corrected for a hospital's drift.

A hospital that takes several steps on its own patients drifts to its own optimum. Each keeps a control variate c_i, the
mean gradient of its last round, and the coordinator keeps their mean c; a step then goes along g - c_i + c, which is
zero at every hospital at the optimum of all patients. Where we differ from the paper:

* Means over hospitals are weighted by training patients, n_i / N, as in FedAvg, so the optimum is that of all patients
  together; the paper weighs hospitals alike. As there, N counts the hospitals that do not answer in a round, too.
* Learning rates differ between parameters, so option II holds for each with its own:
  c_i+ = c_i - c + (x - y) / (K lr). SGD adds the weight decay to the corrected gradient, so c_i+ is the mean over K
  steps of the gradient of the penalised loss. The gradient is clipped first, so c_i is a mean of clipped gradients.
* With momentum x - y is not lr times a sum of gradients: refused by the settings.
* BatchNorm moments are no gradient's: they have no control variate.
"""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from shared_model.protocol.quantities import MAX_PATIENTS, Quantities, Quantity
from shared_model.training.updates import Weights, is_moment

CONTROL = "control/"

_CHANGE = MAX_PATIENTS * 100.0  # clipped gradients are far below 100


def controlled_names(weights: Weights) -> tuple[str, ...]:
    """Which of the weights that travel have a control variate."""
    return tuple(name for name in weights if not is_moment(name))


def control_quantities(weights: Weights) -> Quantities:
    """What a train reply carries besides: n_i times the change of each control variate."""
    return {CONTROL + name: Quantity(weights[name].shape, _CHANGE) for name in controlled_names(weights)}


def gradient_corrections(server: Weights, own: Weights) -> dict[str, np.ndarray]:
    """What is added to every gradient, c - c_i, float32; nothing in the first round of a phase, when all are zero.

    Args:
        server: c by parameter name; empty in the first round.
        own: c_i of this hospital; empty until its answer has counted once.
    """
    return {name: value - own[name] if name in own else value for name, value in server.items()}


def next_control(
    corrections: Weights, *, before: Weights, after: Weights, rates: Mapping[str, float], n_steps: int
) -> dict[str, np.ndarray]:
    """The hospital's control variates after its round, c_i+ = c_i - c + (x - y) / (K lr), float32.

    Args:
        corrections: c - c_i as it was added, empty for zero.
        before: x, weights at the start of the round.
        after: y, the same after local training.
        rates: learning rate by parameter name.
        n_steps: K, steps of the round.
    """
    control = {}
    for name in controlled_names(before):
        gradient = (before[name].astype(np.float64) - after[name]) / (n_steps * rates[name])
        control[name] = (gradient - corrections.get(name, 0.0)).astype(np.float32)
    return control


def pack_control(old: Weights, new: Weights, *, n: int) -> dict[str, np.ndarray]:
    """One hospital's contribution to the server's control variate, n_i (c_i+ - c_i), float32."""
    return {
        CONTROL + name: (n * (value.astype(np.float64) - old.get(name, 0.0))).astype(np.float32)
        for name, value in new.items()
    }


def correct_gradients(parameters: Mapping[str, Tensor], corrections: Mapping[str, Tensor]) -> None:
    """Add the corrections to the gradients; a parameter that its batch did not use is corrected all the same."""
    for name, correction in corrections.items():
        parameter = parameters[name]
        if parameter.grad is None:
            parameter.grad = correction.clone()
        else:
            parameter.grad.add_(correction)
