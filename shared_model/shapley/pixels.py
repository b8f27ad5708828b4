"""X-ray pixels: DeepLIFT multipliers from g_m through the head's read-out and the image encoder to each pixel.

This is G-DeepSHAP (Chen, Lundberg and Lee 2022) with the exact Shapley value in place of its rescale rule at the
fusion: the attribution of each pair of images sums to the modality's exact value against that reference.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from shared_model.model.encoders import ImageEncoder
from shared_model.shapley.game import ModalityGame
from shared_model.shapley.rescale import rescale_rule


@dataclass(frozen=True)
class PixelValues:
    """Attribution of an image's part of the logit to its pixels.

    Attributes:
        pixels: mean over reference images, log odds.
        residual: mean over references of |sum of pixels - difference of g_m|, over the mean |difference|.
    """

    pixels: Float64[Tensor, "height width"]
    residual: float


def pixel_values(
    game: ModalityGame,
    encoder: ImageEncoder,
    *,
    image: Float[Tensor, "1 height width"],
    references: Float[Tensor, "background 1 height width"],
) -> PixelValues:
    """Attribute g_m to the pixels of one image.

    Args:
        game: g_m against the background rows whose images these are.
        encoder: in eval mode; left as it was.
        image: standardised, as the encoder takes it.
        references: likewise.

    Raises:
        StudyError: the encoder or the head has a part that the rescale rule cannot pass.
    """
    n = len(references)
    images = image.expand_as(references).clone().requires_grad_()
    with rescale_rule(encoder, *game.game.read_out_networks):
        contribution = game.game.contribution(game.name, encoder(torch.cat([images, references])).double())
        total = game.others.repeat(2, 1, 1) + contribution.unsqueeze(1)
        g = game.game.read_out(total) @ game.weights
        (multiplier,) = torch.autograd.grad(g[:n].sum(), images)
    attribution = (multiplier.double() * (images.detach() - references).double()).squeeze(1)
    difference = (g[:n] - g[n:]).detach()
    scale = float(difference.abs().mean())
    gap = float((attribution.sum(dim=(1, 2)) - difference).abs().mean())
    return PixelValues(attribution.mean(dim=0), gap / scale if scale else 0.0)
