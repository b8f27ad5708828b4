"""X-rays: a ResNet with a one-channel stem, or a network of another package.

A package adds a network by an entry point of the group `hipfed.image_encoders`: a callable without arguments that gives
an `nn.Module` with random weights from standardised images [patient, 1, height, width] to [patient, n_features], with
an attribute `n_features`. For attributions to pixels every leaf must be a module that the rescale rule passes: ReLU,
MaxPool2d, or one that is linear for each row (shapley/rescale.py, `ROW_WISE_LINEAR`); without, a patient's page says
that there are none. BatchNorm2d keeps patients apart in eval mode, GroupNorm is not linear.
"""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from shared_model import extensions
from shared_model.config import IMAGE_ENCODERS
from shared_model.errors import ExtensionError, SettingsError
from shared_model.model.encoders.resnet import ResNet


class ImageEncoder(nn.Module):
    """A residual network (He et al. 2016) on one gray channel, ending in a linear projection to `width` values.

    BatchNorm rather than GroupNorm: in eval mode it is linear for each patient, which exact propagation of Shapley
    values needs.
    """

    def __init__(self, *, architecture: str, width: int, skip: bool = True) -> None:
        """A random network.

        Args:
            architecture: resnet18, resnet50, or the name under which a package adds a network.
            width: of the embedding.
            skip: whether blocks of a ResNet add their input to their output; without, it is the plain network of the
                same depth.
        """
        super().__init__()
        # Any: a ResNet, or a module of which only its outputs' width is known.
        self.network: Any = ResNet(architecture, skip=skip) if architecture in IMAGE_ENCODERS else _load(architecture)
        self.n_features = int(self.network.n_features)
        self.projection = nn.Linear(self.n_features, width)
        if isinstance(self.network, ResNet):
            self.network.fc = nn.Identity()
            self.network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(self.network.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.width = width

    def forward(self, image: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch {self.width}"]:
        """Embedding of a standardised image."""
        embedding: Tensor = self.projection(self.features(image))
        return embedding

    def features(self, image: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch {self.n_features}"]:
        """What the residual network makes of a standardised image: averages over the image of its last maps."""
        features: Tensor = self.network(image)
        return features

    def load_pretrained(self, path: Path) -> None:
        """Start from a torchvision classifier's state dict (.safetensors or .pth); its class layer is left out.

        The three colour filters of the stem are summed, which equals showing it the gray image in all three channels.

        Raises:
            SettingsError: the file is missing, unreadable, or of another architecture.
        """
        try:
            if path.suffix == ".safetensors":
                weights = load_file(path)
            else:
                weights = torch.load(path, map_location="cpu", weights_only=True)
        except OSError as error:
            raise SettingsError(f"image-weights at {path}: expected a torchvision state dict, got {error}") from error
        except (EOFError, RuntimeError, SafetensorError, UnpicklingError, ValueError) as error:
            # The text of an UnpicklingError advises to load the file unsafely.
            raise SettingsError(
                f"image-weights at {path}: expected a torchvision state dict, got {type(error).__name__} on reading it."
            ) from error
        if not isinstance(weights, dict) or not all(
            isinstance(key, str) and isinstance(value, Tensor) for key, value in weights.items()
        ):
            raise SettingsError(f"image-weights at {path}: expected a torchvision state dict, got something else.")
        own = self.network.state_dict()
        stem = weights.get("conv1.weight")
        if stem is not None and stem.ndim == 4 and stem.shape[1] == 3:
            weights["conv1.weight"] = stem.sum(dim=1, keepdim=True)
        kept = {key: value for key, value in weights.items() if not key.startswith("fc.")}
        # torchvision's older files have no BatchNorm step counters, and nothing reads them.
        needed = [key for key in own if not key.endswith(".num_batches_tracked")]
        wrong = [key for key in needed if key not in kept or kept[key].shape != own[key].shape]
        if wrong:
            raise SettingsError(
                f"image-weights at {path}: expected the layers of this network, got none or another shape for "
                f"{wrong[0]} and {len(wrong) - 1} more. Choose the file that fits image-encoder."
            )
        self.network.load_state_dict({**own, **{key: kept[key] for key in own if key in kept}})


def _load(architecture: str) -> Any:
    """A network of another package.

    Raises:
        ExtensionError: it is none.
    """
    network = extensions.load(extensions.IMAGE_ENCODERS, architecture)()
    if not isinstance(network, nn.Module) or not isinstance(getattr(network, "n_features", None), int):
        raise ExtensionError(
            f"image-encoder={architecture}: expected an nn.Module with an attribute n_features, got "
            f"{type(network).__name__}. Mend the package that adds it."
        )
    return network
