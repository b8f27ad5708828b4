"""Features of the images by encoders that stay fixed: computed once and kept at the hospital, for every phase and run.

A residual network takes most of a run's time, and one that stays fixed makes the same of an image each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from client.kept_files import forget_oldest, write_tensors
from client.site import Site
from shared_model.encoders import ImageEncoder
from shared_model.fusion import Embeddings, MultimodalModel
from shared_model.preprocessing import Preprocessing
from shared_model.training import Rows, eval_mode, mixed_precision

KEPT_FILES = 30
CHUNK = 128  # patients at a time, so that memory stays flat


def image_features(
    site: Site, model: MultimodalModel, preprocessing: Preprocessing, name: str
) -> Float[Tensor, "patient feature"]:
    """What the encoder's residual network makes of the image of every patient of the hospital; 0 without the image.

    Args:
        site: the hospital.
        model: with the network's weights.
        preprocessing: the common one.
        name: of an image whose encoder stays fixed.
    """
    encoder = model.image_encoders()[name]
    device = encoder.projection.weight.device
    key = _key(site, encoder, preprocessing, name)
    path = site.state_dir / "features" / f"{name}-{key}-{device.type}.safetensors"
    try:
        kept = load_file(path, device=str(device))["features"]
        path.touch()
    except (OSError, SafetensorError):
        kept = _compute(site, model, preprocessing, name)
        write_tensors(path, {"features": kept})
        forget_oldest(path.parent.glob("*.safetensors"), keep=KEPT_FILES)
    return kept


@torch.no_grad()
def embed_fixed_images(
    site: Site, model: MultimodalModel, preprocessing: Preprocessing, rows: Rows, *, without: Collection[str] = ()
) -> Embeddings:
    """Embeddings of some patients by the image encoders that stay fixed, as `model.encode` gives them.

    Args:
        site: the hospital.
        model: with the encoders' weights.
        preprocessing: the common one.
        rows: of the patients.
        without: images that are not needed.
    """
    embeddings = {}
    for name in (name for name in model.fixed if name not in without):
        features = image_features(site, model, preprocessing, name)
        device = features.device
        present = torch.from_numpy(site.patients.present[name][rows]).to(device)
        projected = model.image_encoders()[name].projection(features[torch.from_numpy(rows).to(device)])
        embeddings[name] = torch.where(present.unsqueeze(1), projected, 0.0)
    return embeddings


def _key(site: Site, encoder: ImageEncoder, preprocessing: Preprocessing, name: str) -> str:
    """All that features depend on: the network, how its images are standardised, and the images."""
    digest = hashlib.sha256(f"{preprocessing.image_mean[name]!r}{preprocessing.image_sd[name]!r}".encode())
    digest.update(site.image_hash(name).encode())
    for part, weight in encoder.network.state_dict().items():
        digest.update(f"{part}{tuple(weight.shape)}".encode())
        digest.update(np.ascontiguousarray(weight.cpu().numpy()).tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _compute(site: Site, model: MultimodalModel, preprocessing: Preprocessing, name: str) -> Tensor:
    encoder = model.image_encoders()[name]
    device, others = encoder.projection.weight.device, [other for other in site.schema.images if other != name]
    here = np.flatnonzero(site.patients.present[name])
    features = torch.zeros(len(site.patients), encoder.n_features, device=device)
    for start in range(0, len(here), CHUNK):
        rows = here[start : start + CHUNK]
        batch = preprocessing.batch(site.patients, rows, schema=site.schema, device=device, without=others)
        with eval_mode(encoder), mixed_precision(device):
            features[torch.from_numpy(rows).to(device)] = encoder.features(batch.images[name]).float()
    return features
