"""Features of the images by encoders that stay fixed: computed once and kept at the hospital, for every phase and run.

A residual network takes most of a run's time, and one that stays fixed makes the same of an image each time.
"""

import hashlib
import inspect
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from client.site import Site
from client.worker.tensor_cache import forget_oldest, write_tensors
from shared_model.model.fusion import MultimodalModel
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.training.epochs import Rows, eval_mode, mixed_precision

KEPT_FILES = 30
CHUNK = 128  # patients at a time, so that memory stays flat


def image_features(
    site: Site, model: MultimodalModel, preprocessing: Preprocessing, name: str, *, networks_sha256: str
) -> Float[Tensor, "patient feature"]:
    """What the encoder's residual network makes of the image of every patient of the hospital; 0 without the image.

    Args:
        site: the hospital.
        model: with the network's weights.
        preprocessing: the common one.
        name: of an image whose encoder stays fixed.
        networks_sha256: hash of all networks of the model that stay fixed.
    """
    device = model.image_encoders()[name].projection.weight.device
    scale = (preprocessing.image_mean[name], preprocessing.image_sd[name])
    depends_on = (networks_sha256, _hash_code(model.image_encoders()[name]), *scale, site.image_hash(name))
    key = hashlib.sha256(repr(depends_on).encode()).hexdigest()
    path = site.state_dir / "features" / f"{name}-{key}-{device.type}.safetensors"
    try:
        kept = load_file(path, device=str(device))["features"]
        path.touch()
    except (OSError, SafetensorError):
        kept = _compute(site, model, preprocessing, name)
        write_tensors(path, {"features": kept})
        forget_oldest(path.parent.glob("*.safetensors"), keep=KEPT_FILES)
    return kept


def _hash_code(encoder: nn.Module) -> str:
    """What an encoder does with its weights: its layers, and the source of those that are not torch's."""
    kinds = {type(part) for part in encoder.modules() if not type(part).__module__.startswith("torch.")}
    files = {inspect.getsourcefile(kind) for kind in kinds}
    digest = hashlib.sha256(repr(encoder).encode())
    for file in sorted(str(file) for file in files if file):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


@torch.no_grad()
def embed_features(
    site: Site, model: MultimodalModel, features: Float[Tensor, "patient feature"], name: str, rows: Rows
) -> Float[Tensor, "row width"]:
    """Embedding of some patients' images, as `model.encode` gives it: the projection of their features, 0 without."""
    present = torch.from_numpy(site.patients.present[name][rows]).to(features.device)
    projected: Tensor = model.image_encoders()[name].projection(features[torch.from_numpy(rows).to(features.device)])
    return torch.where(present.unsqueeze(1), projected, 0.0)


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
            features[torch.from_numpy(rows).to(device)] = encoder.features(batch.inputs[name]).float()
    return features
