"""The global model at the hospital, and the hospital's patients as the model takes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from client.site import Site
from shared_model.batch import Batch
from shared_model.config import Settings
from shared_model.errors import ProtocolError
from shared_model.fusion import MultimodalModel, empty_model
from shared_model.preprocessing import Preprocessing
from shared_model.splits import Split
from shared_model.training import Encoded, Rows, Source, choose_device, encode, encode_all
from shared_model.updates import Weights, to_tensors


@dataclass(frozen=True)
class LocalModel:
    """A model on the hospital's device, able to encode the hospital's patients.

    Attributes:
        model: NaN in every weight that was not loaded, so that a forgotten one shows.
        site: the hospital.
        split: its training, validation and test rows.
        preprocessing: the common one.
        device: where the model is.
    """

    model: MultimodalModel
    site: Site
    split: Split
    preprocessing: Preprocessing
    device: torch.device

    def load(self, weights: Weights, expected: Iterable[str]) -> None:
        """Put weights from a message into the model.

        Raises:
            ProtocolError: a name is missing or unknown, a shape differs, or a value is not finite.
        """
        state, names = self.model.state_dict(), set(expected)
        if names != set(weights):
            raise ProtocolError(
                f"weights: expected the {len(names)} agreed names, got {len(weights)}, "
                f"{len(names ^ set(weights))} of them missing or unknown."
            )
        for name, value in weights.items():
            if tuple(state[name].shape) != value.shape or not np.isfinite(value).all():
                raise ProtocolError(f"weights, {name}: expected finite values of shape {tuple(state[name].shape)}.")
        self.model.load_state_dict(to_tensors(weights), strict=False)

    def encode_all(self, rows: Rows) -> Encoded:
        """Embeddings in eval mode, without gradients."""
        return encode_all(self.model, self._batch, rows, device=self.device)

    def encoding_source(self, rows: Rows) -> Source:
        """Embeddings of chosen positions of `rows`, computed afresh with gradients."""
        return lambda chosen: encode(self.model, self._batch(rows[chosen]), device=self.device)

    def _batch(self, rows: Rows) -> Batch:
        return self.preprocessing.batch(self.site.patients, rows, schema=self.site.schema, device=self.device)


def open_local_model(site: Site, settings: Settings, *, preprocessing: str) -> LocalModel:
    """A model without weights, on the hospital's device.

    Args:
        site: the hospital.
        settings: of the run.
        preprocessing: JSON of the common preprocessing.

    Raises:
        SettingsError: the device is not there.
    """
    torch.set_num_threads(settings.threads)
    device = choose_device(settings.device)
    model = empty_model(site.schema, settings, device=device)
    if device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    return LocalModel(model, site, site.split(settings), Preprocessing.from_json(preprocessing), device)
