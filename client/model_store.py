"""Weights and embeddings that a hospital keeps between messages: files that it can always ask for or make again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from shared_model.errors import HipfedError, ProtocolError
from shared_model.fusion import MultimodalModel
from shared_model.training import Encoded
from shared_model.updates import Weights, hash_weights, to_tensors


class NeedsFrozenWeightsError(HipfedError):
    """The question names frozen weights that this hospital does not hold; they must come with the question."""


@dataclass(frozen=True)
class ModelStore:
    """Files below the hospital's state folder."""

    folder: Path

    def frozen_weights(self, sha256: str, sent: Weights) -> Weights:
        """The weights that a phase does not change: those sent, which are kept, or those kept earlier.

        Raises:
            NeedsFrozenWeightsError: none were sent and none are held.
            ProtocolError: those sent do not have the hash.
        """
        path = self.folder / "frozen" / f"{sha256}.safetensors"
        if sent:
            if hash_weights(sent) != sha256:
                raise ProtocolError("frozen weights: expected the hash that the question names, got another.")
            _keep_only(path, to_tensors(sent))
            return sent
        if sha256 == hash_weights({}):
            return {}
        try:
            return {name: value.numpy() for name, value in load_file(path).items()}
        except (OSError, SafetensorError) as error:
            raise NeedsFrozenWeightsError("frozen weights: not held here. Send them with the question.") from error

    @staticmethod
    def check_fits(model: MultimodalModel, weights: Weights) -> None:
        """Weights are exactly the model's.

        Raises:
            ProtocolError: a name is missing or unknown, a shape differs, or a value is not finite.
        """
        state = model.state_dict()
        expected = set(model.learned_names())
        if expected != set(weights):
            raise ProtocolError(f"weights: expected {len(expected)} agreed names, got {len(weights)} that differ.")
        for name, value in weights.items():
            if tuple(state[name].shape) != value.shape or not np.isfinite(value).all():
                raise ProtocolError(f"weights, {name}: expected finite values of shape {tuple(state[name].shape)}.")

    def embeddings(self, part: str, key: str, make: Callable[[], Encoded], *, device: torch.device) -> Encoded:
        """Embeddings of one part of the patients by frozen encoders, from the file of this key or made now and kept."""
        path = self.folder / "embeddings" / part / f"{key}.safetensors"
        try:
            held = load_file(path, device=str(device))
        except (OSError, SafetensorError):
            made = make()
            _keep_only(path, _flatten(made))
            return made
        return _unflatten(held)

    def save_norms(self, model: MultimodalModel, run_id: str, *, after_round: int) -> None:
        """FedBN: keep this hospital's BatchNorm after a round."""
        state = model.state_dict()
        _write(self._norms(run_id, after_round), {name: state[name] for name in model.batch_norm_names()})

    def load_norms(self, model: MultimodalModel, run_id: str, *, before_round: int) -> None:
        """FedBN: put this hospital's latest BatchNorm of the first `before_round` rounds into the model, if any."""
        for round_number in range(before_round, 0, -1):
            path = self._norms(run_id, round_number)
            if path.exists():
                model.load_state_dict(load_file(path), strict=False)
                return

    def _norms(self, run_id: str, round_number: int) -> Path:
        return self.folder / "norms" / run_id / f"{round_number:06d}.safetensors"


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary)
    Path(temporary).replace(path)


def _keep_only(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the file and remove older ones beside it, so that the store stays as large as one model."""
    _write(path, tensors)
    for other in path.parent.glob("*.safetensors"):
        if other != path:
            other.unlink(missing_ok=True)


def _flatten(encoded: Encoded) -> dict[str, Tensor]:
    flat = {f"embedding/{name}": value for name, value in encoded.embeddings.items()}
    flat |= {f"present/{name}": value for name, value in encoded.present.items()}
    return flat | {"outcome": encoded.outcome}


def _unflatten(flat: Mapping[str, Tensor]) -> Encoded:
    parts: dict[str, dict[str, Tensor]] = {"embedding": {}, "present": {}}
    for key, value in flat.items():
        kind, _, name = key.partition("/")
        if name:
            parts[kind][name] = value
    return Encoded(parts["embedding"], parts["present"], flat["outcome"])
