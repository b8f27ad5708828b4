"""Shapley and Owen values of a linear head in closed form: nothing is enumerated, drawn or estimated.

With early fusion and a linear head the logit is a sum over columns of the fused input, `sum_c w_c x_c`. Against a
background row b a player's value is then the change of its own columns, `sum_c w_c (x_c - b_c)`, whatever the others
do; its value is the mean of that over the background, and players do not interact (Lundberg and Lee 2017, corollary 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64
from torch import Tensor


@dataclass(frozen=True)
class LinearModalities:
    """Values of modalities on the logit; those of a modality alone, and of leaving it out, are the same.

    Attributes:
        phi: of each patient and modality.
        se_background: standard error of phi from the finite background.
    """

    phi: Float64[Tensor, "patient modality"]
    se_background: Float64[Tensor, "patient modality"]


def linear_modalities(
    own: Float64[Tensor, "patient modality 1"], reference: Float64[Tensor, "background modality 1"]
) -> LinearModalities:
    """phi_m = w_m (e_m(x) - mean of e_m(b)).

    Args:
        own: contributions of the patients to a linear head.
        reference: contributions of the background.
    """
    parts, background = own.squeeze(2), reference.squeeze(2)
    phi = parts - background.mean(dim=0)
    variance = background.var(dim=0, correction=min(1, len(background) - 1))
    return LinearModalities(phi, (variance / len(background)).sqrt().expand_as(phi))


@dataclass(frozen=True)
class LinearFeatures:
    """Values of the features of one modality.

    Attributes:
        phi: 0 where the patient lacks the modality.
        presence: of having or lacking it at all; with phi it sums to the modality's value.
    """

    phi: Float64[Tensor, "patient feature"]
    presence: Float64[Tensor, "patient"]


def linear_features(
    groups: Sequence[Sequence[int]],
    *,
    weight: Float64[Tensor, "1 width"],
    own: Float64[Tensor, "patient width"],
    reference: Float64[Tensor, "background width"],
    own_present: Bool[Tensor, "patient"],
    reference_present: Bool[Tensor, "background"],
) -> LinearFeatures:
    """The modality's value by column, against the background rows that have it, and what the other rows add.

    Args:
        groups: columns of each feature; together all columns, each once.
        weight: of the head for the modality's columns.
        own: what of each patient enters the fusion.
        reference: what of each background row does.
        own_present: which patients have the modality.
        reference_present: which rows do.
    """
    member = own.new_zeros(own.shape[1], len(groups))
    for j, columns in enumerate(groups):
        member[list(columns), j] = 1.0
    both, n = reference[reference_present], len(reference)
    # Differences first: where patient and rows do not differ, the value is 0 and not rounding.
    change = own * len(both) - both.sum(dim=0)
    phi = ((change * weight) @ member / n).masked_fill(~own_present.unsqueeze(1), 0.0)
    lacking = reference[~reference_present]
    against_lacking = (own * len(lacking) - lacking.sum(dim=0)) @ weight[0] / n
    presence = torch.where(own_present, against_lacking, change @ weight[0] / n)
    return LinearFeatures(phi, presence)
