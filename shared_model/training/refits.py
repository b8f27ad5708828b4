"""Refits of a linear head on resampled patients: whom each refit counts how often, and the sums that it needs.

How far a share would move with other training patients, no sum over the patients of one fit tells. So the head is
fitted again, as often as `share-refits` says, each time with every patient counted a random number of times (a
bootstrap by weights, Poisson with mean 1: Chamandy et al. 2012, Google Research, "Estimating uncertainty for massive
data streams"). All refits take their Newton step with the same question.

* Refit 0 counts every patient once: it is the fit itself, carried on until it has settled.
* How often a patient counts follows from the study's seed, the hospital, the patient's id and the number of the refit.
  It is drawn at the hospital and stays there; a repeated question draws the same.
* A hospital sends as many gradients and Hessians of the same patients as there are refits, which could be solved for
  single patients. So a hospital answers in simulations only, or where its study trusts the coordinator.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import softplus

from shared_model.config import Settings
from shared_model.protocol.quantities import MAX_PATIENTS, Quantities, Quantity
from shared_model.training.newton import GRADIENT, HESSIAN, newton_quantities
from shared_model.training.newton_rules import uses_newton

LOSS, SIZES = "refit/loss", "refit/sizes"
MESSAGE_BYTES = 16 * 2**20  # of one reply; a GB of answers of all hospitals would have to be held
_LARGEST = 1e3  # log loss or |phi| of one patient
_BITS = 53
_CUMULATIVE = np.exp(-1.0) * np.cumsum(1.0 / np.cumprod(np.r_[1.0, np.arange(1.0, 18.0)]))  # Poisson(1), up to 17


def is_refitted(settings: Settings) -> bool:
    """True if a run ends with Newton's steps of a head that all hospitals share, which are repeated in a refit."""
    return settings.phases[-1] == "fusion" and uses_newton(settings, "fusion")


def draw_counts(
    patient_ids: Sequence[str], refits: Sequence[int], *, site: str, seed: int
) -> Float64[np.ndarray, "refit patient"]:
    """How often each refit counts each patient: Poisson with mean 1, and once in refit 0.

    Args:
        patient_ids: of the hospital.
        refits: their numbers.
        site: the hospital's name; the same id at two hospitals is two patients.
        seed: of the study.
    """
    size = np.dtype(">u8").itemsize
    drawn = np.empty((max(refits, default=0), len(patient_ids)))
    for column, patient in enumerate(patient_ids):
        stream = hashlib.shake_256(f"{seed}:{site}:{patient}:refits".encode()).digest(size * len(drawn))
        uniform = np.ldexp((np.frombuffer(stream, dtype=">u8") >> (64 - _BITS)).astype(np.float64), -_BITS)
        drawn[:, column] = np.searchsorted(_CUMULATIVE, uniform, side="right")
    return np.concatenate([np.ones((1, len(patient_ids))), drawn])[list(refits)]


def refits_in_message(width: int) -> int:
    """How many refits' sums one reply may carry.

    Args:
        width: of the concatenated embeddings.
    """
    return max(1, MESSAGE_BYTES // (8 * ((width + 1) * (width + 4) // 2 + 1)))


def refit_quantities(n_refits: int, *, width: int) -> Quantities:
    """The arrays of `refit_sums`.

    Raises:
        SettingsError: the head is too wide for Newton's steps.
    """
    once = newton_quantities(width)
    several = {name: Quantity((n_refits, *once[name].shape), once[name].limit) for name in (GRADIENT, HESSIAN)}
    return {**several, LOSS: Quantity((n_refits,), MAX_PATIENTS * _LARGEST, 0)}


def size_quantities(n_refits: int, *, n_modalities: int) -> Quantities:
    """The arrays of `size_sums`."""
    return {SIZES: Quantity((n_refits, n_modalities), MAX_PATIENTS * _LARGEST, 0)}


@torch.no_grad()
def refit_sums(
    inputs: Float64[Tensor, "patient column"],
    outcome: Float64[Tensor, "patient"],
    counts: Float64[Tensor, "refit patient"],
    heads: Float64[Tensor, "refit column"],
    *,
    event_weight: float,
) -> dict[str, np.ndarray]:
    """Of each refit, what `newton_sums` says of patients counted so often.

    Args:
        inputs: of the head, from `head_inputs`.
        outcome: 0 or 1.
        counts: how often each patient counts.
        heads: weights, then the intercept.
        event_weight: how often an event counts besides.
    """
    counted = counts * (1 + (event_weight - 1) * outcome)
    logit = heads @ inputs.T
    risk = torch.sigmoid(logit)
    curvature = counted * risk * (1 - risk)
    n = inputs.shape[1]
    triangle = tuple(torch.triu_indices(n, n))
    hessians = [((inputs * weight.unsqueeze(1)).T @ inputs)[triangle] for weight in curvature]
    loss = counted * softplus(torch.where(outcome > 0, -logit, logit))
    sums = {
        GRADIENT: (counted * (risk - outcome)) @ inputs,
        HESSIAN: torch.stack(hessians),
        LOSS: loss.sum(dim=1),
    }
    return {name: value.cpu().numpy() for name, value in sums.items()}


@torch.no_grad()
def size_sums(
    inputs: Float64[Tensor, "patient column"],
    background: Float64[Tensor, "row column"],
    counts: Float64[Tensor, "refit patient"],
    heads: Float64[Tensor, "refit column"],
    *,
    widths: Sequence[int],
) -> dict[str, np.ndarray]:
    """Of each refit, the sum of every modality's |phi| over patients counted so often.

    With a linear head the Shapley value of modality m is `w_m (e_m(x) - mean over b of e_m(b))`, without enumeration.

    Args:
        inputs: of the patients, from `head_inputs`.
        background: of the background rows, likewise.
        counts: how often each patient counts.
        heads: weights, then the intercept.
        widths: columns of each modality, in their order.
    """
    centred = (inputs - background.mean(dim=0))[:, :-1]
    parts = torch.split(centred, list(widths), dim=1), torch.split(heads[:, :-1], list(widths), dim=1)
    sizes = [(counts * (own @ x.T).abs()).sum(dim=1) for x, own in zip(*parts, strict=True)]
    return {SIZES: torch.stack(sizes, dim=1).cpu().numpy()}
