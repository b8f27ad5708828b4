"""The global model at the hospital, and the hospital's patients as the model takes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from client.model_store import ModelStore
from client.site import Site
from shared_model.batch import Batch
from shared_model.config import Settings
from shared_model.fusion import MultimodalModel, empty_model
from shared_model.preprocessing import Preprocessing
from shared_model.splits import Split
from shared_model.training import Encoded, Rows, Source, choose_device, encode, encode_all
from shared_model.updates import Weights, to_tensors


@dataclass(frozen=True)
class LocalModel:
    """A model on the hospital's device, able to encode the hospital's patients.

    Attributes:
        model: with the weights of one question.
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

    def encode_all(self, rows: Rows) -> Encoded:
        """Embeddings in eval mode, without gradients."""
        return encode_all(self.model, self._batch, rows, device=self.device)

    def encoding_source(self, rows: Rows) -> Source:
        """Embeddings of chosen positions of `rows`, computed afresh with gradients."""
        return lambda chosen: encode(self.model, self._batch(rows[chosen]), device=self.device)

    def _batch(self, rows: Rows) -> Batch:
        return self.preprocessing.batch(self.site.patients, rows, schema=self.site.schema, device=self.device)


def load_local_model(
    site: Site, settings: Settings, *, weights: Weights, preprocessing: str, run_id: str, round_number: int
) -> LocalModel:
    """The model of a question, on the hospital's device.

    Args:
        site: the hospital.
        settings: of the run.
        weights: all learned weights by name.
        preprocessing: JSON of the common preprocessing.
        run_id: of the run, for FedBN's local layers.
        round_number: rounds that made the weights, likewise.

    Raises:
        ProtocolError: the weights are not exactly this study's model.
        SettingsError: the device is not there.
    """
    torch.set_num_threads(settings.threads)
    device = choose_device(settings.device)
    model = empty_model(site.schema, settings, device=device)
    if device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    store = ModelStore(site.state_dir)
    store.check_fits(model, weights)
    model.load_state_dict(to_tensors(weights), strict=False)
    if settings.local_norm:
        store.load_norms(model, run_id, before_round=round_number)
    return LocalModel(model, site, site.split(settings), Preprocessing.from_json(preprocessing), device)
