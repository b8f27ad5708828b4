"""Training losses on the logit."""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def outcome_loss(
    logit: Float[Tensor, "batch"], outcome: Float[Tensor, "batch"], *, event_weight: float
) -> Float[Tensor, ""]:
    """Mean log loss, events counted `event_weight` times. With weight 1 the probabilities stay calibrated."""
    return binary_cross_entropy_with_logits(logit, outcome, pos_weight=torch.tensor(event_weight, device=logit.device))


def unimodal_loss(
    logits: Mapping[str, Float[Tensor, "batch"]],
    present: Mapping[str, Bool[Tensor, "batch"]],
    outcome: Float[Tensor, "batch"],
    *,
    event_weight: float,
) -> Float[Tensor, ""]:
    """Sum over modalities of the log loss of its own head, over the patients who have it; 0 if nobody has any."""
    losses = [
        outcome_loss(logit[present[name]], outcome[present[name]], event_weight=event_weight)
        for name, logit in logits.items()
        if bool(present[name].any())
    ]
    if not losses:  # nobody of this batch has any of the modalities: nothing to learn, in a tensor with a gradient
        return torch.stack([logit.sum() for logit in logits.values()]).sum() * 0.0
    return torch.stack(losses).sum()


def balanced_event_weight(*, n: int, events: int) -> float:
    """Non-events per event: the weight that gives both classes the same total weight."""
    return (n - events) / events


def logit_correction(event_weight: float) -> float:
    """What to add to the logit of a model trained with `event_weight` so that its probabilities are calibrated.

    Weighting events by w multiplies the odds that the loss is minimal at by w (Saerens et al. 2002, eq. 2.4).
    """
    return -math.log(event_weight)
