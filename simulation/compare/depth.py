"""Skip connections and gradients: their norm by depth, in the residual and in the plain network."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

from client.site import Site
from shared_model.config import Settings
from shared_model.model.encoders import ImageEncoder
from shared_model.quality.image_measures import GRAY_LEVELS
from shared_model.schema import Schema
from simulation.compare.style import BLUE, GRAY, plain

BATCH = 32
COLUMNS = ["image", "network", "depth", "layer", "gradient_norm", "relative"]


def gradient_norms(sites: Sequence[Site], settings: Settings, schema: Schema) -> pd.DataFrame:
    """Norm of the loss's gradient in every convolution of an untrained network, on a batch of real images.

    Args:
        sites: the first one that has the image gives the batch.
        settings: for architecture and seed.
        schema: the study.

    Returns:
        A row per image, network and convolution, from the input on; `relative` is the gradient's norm over that of the
        weights. No rows without images.
    """
    rows = []
    for name in schema.images:
        owner = next((site for site in sites if site.patients.present[name].any()), None)
        if owner is None:
            continue
        chosen = np.flatnonzero(owner.patients.present[name])[:BATCH]
        gray = torch.from_numpy(owner.patients.raw[name][chosen].astype(np.float32) / GRAY_LEVELS).unsqueeze(1)
        images = (gray - gray.mean()) / gray.std().clamp(min=1e-6)
        outcome = torch.from_numpy(owner.patients.outcome[chosen].astype(np.float32))
        for label, skip in (("residual", True), ("plain", False)):
            rows += [{"image": name, "network": label, **row} for row in _norms(images, outcome, settings, skip=skip)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _norms(
    images: torch.Tensor, outcome: torch.Tensor, settings: Settings, *, skip: bool
) -> list[dict[str, float | int | str]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        encoder = ImageEncoder(architecture=settings.image_encoder, width=settings.image_embedding, skip=skip).train()
        head = nn.Linear(settings.image_embedding, 1)
    loss = nn.functional.binary_cross_entropy_with_logits(head(encoder(images)).squeeze(1), outcome)
    loss.backward()  # type: ignore[no-untyped-call]
    convolutions = [
        (name, layer.weight)
        for name, layer in encoder.network.named_modules()
        if isinstance(layer, nn.Conv2d) and "downsample" not in name
    ]
    found = []
    for depth, (name, weight) in enumerate(convolutions, start=1):
        assert weight.grad is not None  # noqa: S101 - every convolution is on the way to the loss
        norm = float(weight.grad.norm())
        found.append(
            {"depth": depth, "layer": name, "gradient_norm": norm, "relative": norm / float(weight.detach().norm())}
        )
    return found


def draw_depth(norms: pd.DataFrame) -> Figure:
    """A panel an image: relative gradient norm by depth."""
    names = list(dict.fromkeys(norms["image"]))
    figure = Figure(figsize=(4.5 * len(names), 3.4))
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for network, colour in (("residual", BLUE), ("plain", GRAY)):
            rows = norms[(norms["image"] == name) & (norms["network"] == network)]
            axes.semilogy(rows["depth"], rows["relative"], "o-", color=colour, markersize=3, label=network)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("convolution, from the input on")
        plain(axes)
    panels[0].set_ylabel("gradient norm / weight norm")
    panels[0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure
