"""Newton's method for a linear head on frozen embeddings: the sums that hospitals send, and what may be in them.

With frozen encoders and no hidden layer, phase `fusion` is a penalised logistic regression, whose Hessian is small.
Hospitals send gradient and Hessian of their summed log loss; a sum of hospitals' is that of all patients together, so
the step is the one on pooled patients, and a few rounds do what hundreds of gradient steps do not.

* What regression sees: the concatenated embeddings, the "absent" embedding where a modality is missing, and an
  intercept. Absent embeddings do not train here. They start at zero, so a patient without a modality gets nothing from
  it; joint training may move them later. A column more for each modality that may be missing was tried on the eICU
  hospitals, where medications are unknown of every sixth patient: it did not raise the AUC.
* Parameters are the weights in the order of the modalities, then the intercept.
* Precision: computed and sent in float64, weights travel in float32, so the end is the optimum to some 1e-7.
* Ranges: an embedding's entries may be a thousand at each of `MAX_PATIENTS` patients; fixed point then resolves 1e-8 of
  a gradient and 1e-5 of a Hessian. An inexact Hessian only makes the step less good, the gradient says where it ends.
"""

import numpy as np
import torch
from jaxtyping import Float64
from torch.nn.functional import softplus

from shared_model.model.fusion import Embeddings, MultimodalModel, Present
from shared_model.protocol.quantities import MAX_PATIENTS, Quantities, Quantity
from shared_model.training.epochs import Encoded
from shared_model.training.newton_rules import refuse_wide_head

GRADIENT, HESSIAN = "newton/gradient", "newton/hessian"
HEAD_WEIGHT, HEAD_BIAS = "head.linear.weight", "head.linear.bias"

_EMBEDDING = 1e3


def newton_quantities(width: int) -> Quantities:
    """What a train reply carries in place of updates.

    Args:
        width: of the concatenated embeddings.

    Raises:
        SettingsError: the Hessian would be too large.
    """
    refuse_wide_head(width)
    n = width + 1
    return {
        GRADIENT: Quantity((n,), MAX_PATIENTS * _EMBEDDING),
        HESSIAN: Quantity((n * (n + 1) // 2,), MAX_PATIENTS * _EMBEDDING**2 / 4),
    }


@torch.no_grad()
def head_inputs(
    model: MultimodalModel, embeddings: Embeddings, present: Present
) -> Float64[torch.Tensor, "patient column"]:
    """Concatenated embeddings as the head sees them, and a column of ones for the intercept."""
    fused = torch.cat(list(model.fused_inputs(embeddings, present).values()), dim=1).double()
    return torch.cat([fused, fused.new_ones(len(fused), 1)], dim=1)


@torch.no_grad()
def newton_sums(model: MultimodalModel, encoded: Encoded, *, event_weight: float) -> dict[str, np.ndarray]:
    """Gradient, upper triangle of the Hessian, and summed log loss over the patients, float64.

    With s = `event_weight` for events and 1 for others and p the predicted risk: s (p - y) x and s p (1 - p) x x^T.

    Args:
        model: with a linear head.
        encoded: the hospital's training patients.
        event_weight: how often an event counts.
    """
    inputs = head_inputs(model, encoded.embeddings, encoded.present)
    state = model.state_dict()
    logit = inputs @ torch.cat([state[HEAD_WEIGHT][0], state[HEAD_BIAS]]).double()
    outcome = encoded.outcome.double()
    counts = 1 + (event_weight - 1) * outcome
    risk = torch.sigmoid(logit)
    hessian = (inputs * (counts * risk * (1 - risk)).unsqueeze(1)).T @ inputs
    sums = {
        GRADIENT: (counts * (risk - outcome)) @ inputs,
        HESSIAN: hessian[tuple(torch.triu_indices(len(hessian), len(hessian)))],
        "train-loss-sum": (counts * softplus(torch.where(outcome > 0, -logit, logit))).sum(),
    }
    return {name: value.cpu().numpy() for name, value in sums.items()}


def unpack_hessian(triangle: Float64[np.ndarray, "_entries"], n: int) -> Float64[np.ndarray, "_row _column"]:
    """The symmetric matrix of n rows that `newton_sums` cut in half."""
    hessian = np.zeros((n, n))
    hessian[np.triu_indices(n)] = triangle
    return np.asarray(hessian + np.triu(hessian, 1).T)
