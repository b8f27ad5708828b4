"""A hospital's memory of a run between messages: files that it can always make again or ask for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from client.worker.tensor_cache import forget_oldest, write_tensors
from shared_model.config import Phase
from shared_model.errors import HipfedError, ProtocolError
from shared_model.model.fusion import HomePart, MultimodalModel
from shared_model.training.epochs import Encoded

KEPT_RUNS = 20


class NeedsWeightsError(HipfedError):
    """The question left out weights that this hospital does not hold."""


@dataclass(frozen=True)
class RunState:
    """Files of one run below the hospital's state folder; runs side by side do not meet.

    Attributes:
        folder: of this run.
    """

    folder: Path

    @classmethod
    def of(cls, state_dir: Path, run_id: str) -> RunState:
        """The files of a run."""
        return cls(state_dir / "runs" / run_id)

    def load_embeddings(self, part: str, key: str, *, device: torch.device) -> Encoded | None:
        """Embeddings that were kept under this key; None if there are none that can be read."""
        try:
            return _unflatten(load_file(self._embeddings(part, key), device=str(device)))
        except (OSError, SafetensorError):
            return None

    def has_embeddings(self, part: str, key: str) -> bool:
        """True if embeddings are kept under this key."""
        return self._embeddings(part, key).exists()

    def save_embeddings(self, part: str, key: str, encoded: Encoded) -> None:
        """Keep embeddings of one part of the patients by frozen encoders."""
        _write(self._embeddings(part, key), _flatten(encoded))

    def load_sums(self, key: str) -> dict[str, np.ndarray] | None:
        """Sums that were kept under this key; None if there are none that can be read."""
        try:
            return {name: value.numpy() for name, value in load_file(self._sums(key)).items()}
        except (OSError, SafetensorError):
            return None

    def save_sums(self, key: str, sums: Mapping[str, np.ndarray]) -> None:
        """Keep sums over patients that a later question needs again."""
        _write(self._sums(key), {name: torch.from_numpy(np.asarray(value)) for name, value in sums.items()})

    def save_home(self, model: MultimodalModel, phase: Phase, *, after_round: int) -> None:
        """Keep what of this hospital's own parts a round of this phase has trained."""
        state, trained = model.state_dict(), frozenset(model.trained_in(phase))
        for part, names in model.home_parts().items():
            if names & trained:
                _write(self._home(part, after_round), {name: state[name] for name in names & trained})

    def load_home(
        self, model: MultimodalModel, *, before_round: int, discarded: Sequence[tuple[int, int]] = ()
    ) -> frozenset[str]:
        """Put this hospital's own parts, as the first `before_round` rounds left them, into the model.

        Args:
            model: to be completed.
            before_round: training rounds that made the model's other weights.
            discarded: ranges (after, up to) of rounds whose weights were dropped.

        Returns:
            Names of what there was.
        """
        own: dict[str, Tensor] = {}
        rounds = [
            number
            for number in range(before_round, 0, -1)
            if not any(after < number <= last for after, last in discarded)
        ]
        for part, names in model.home_parts().items():
            for path in (self._home(part, number) for number in rounds):
                if names <= set(own):
                    break
                if path.exists():
                    own = load_file(path) | own
        model.set_weights(own)
        return frozenset(own)

    def save_control(self, control: Mapping[str, np.ndarray], *, after_round: int, counted_round: int) -> None:
        """SCAFFOLD: keep this hospital's control variates after a round.

        The coordinator may have to ask for the same round again, so those of `counted_round` stay as well.
        """
        _write(self._control(after_round), {name: torch.from_numpy(value) for name, value in control.items()})
        for path in self._control(0).parent.glob("*.safetensors"):
            if path not in {self._control(after_round), self._control(counted_round)}:
                path.unlink(missing_ok=True)

    def load_control(self, counted_round: int) -> dict[str, np.ndarray]:
        """SCAFFOLD: this hospital's control variates as they were after a round; none (all are zero) before the first.

        Raises:
            ProtocolError: they are not here any more. To go on from zero would bend every hospital's steps for good.
        """
        if not counted_round:
            return {}
        try:
            return {name: value.numpy() for name, value in load_file(self._control(counted_round)).items()}
        except (OSError, SafetensorError) as error:
            raise ProtocolError(
                f"control variates (scaffold): expected those that this hospital kept after round {counted_round}, got "
                "none. It takes part again in the next phase."
            ) from error

    def save_weights(self, sha256: str, weights: Mapping[str, Tensor]) -> None:
        """Keep a whole model, in place of the one that was kept before."""
        path = self._weights(sha256)
        if not path.exists():
            for old in path.parent.glob("*.safetensors"):
                old.unlink(missing_ok=True)
            _write(path, weights)

    def load_weights(self, sha256: str) -> dict[str, Tensor]:
        """The whole model with this hash.

        Raises:
            NeedsWeightsError: it is not kept.
        """
        try:
            return load_file(self._weights(sha256))
        except (OSError, SafetensorError) as error:
            raise NeedsWeightsError("weights: not held here. Send them with the question.") from error

    def _weights(self, sha256: str) -> Path:
        return self.folder / "weights" / f"{sha256}.safetensors"

    def _control(self, round_number: int) -> Path:
        return self.folder / "control" / f"{round_number:06d}.safetensors"

    def _home(self, part: HomePart, round_number: int) -> Path:
        return self.folder / part / f"{round_number:06d}.safetensors"

    def _sums(self, key: str) -> Path:
        return self.folder / "sums" / f"{key}.safetensors"

    def _embeddings(self, part: str, key: str) -> Path:
        return self.folder / "embeddings" / f"{part}-{key}.safetensors"


def missing_parts(model: MultimodalModel, own: frozenset[str], phases: Sequence[Phase]) -> str:
    """What the hospital should keep of a model that these phases trained, and does not; empty if it has all."""
    trained = frozenset(name for phase in phases for name in model.trained_in(phase))
    described: dict[HomePart, str] = {"norms": "BatchNorm layers (local-norm)", "head": "fusion head (local-head)"}
    lacking = [part for part, names in model.home_parts().items() if not names & trained <= own]
    return " and ".join(described[part] for part in lacking)


def forget_old_runs(state_dir: Path, *, keep: int = KEPT_RUNS) -> None:
    """Remove the files of all but the `keep` runs that were touched last."""
    forget_oldest((state_dir / "runs").glob("*"), keep=keep)


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    run = path.parent.parent
    is_new = not run.exists()
    write_tensors(path, tensors)
    os.utime(run)  # it is in use
    if is_new:
        forget_old_runs(run.parent.parent)


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
