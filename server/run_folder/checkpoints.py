"""Checkpoints: the state of a run in one file that is replaced whole after every round."""

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from shared_model.config import PHASES, Phase
from shared_model.errors import StudyError
from shared_model.process.files import replace_file
from shared_model.training.updates import hash_weights

FILE = "progress.safetensors"
_ARRAYS = ("weights", "best_weights", "strategy_state")
_NETWORKS = "networks"


@dataclass
class Progress:
    """Everything that the next round depends on, besides the run's settings and the hospitals.

    Attributes:
        weights: global weights now, without those that never change in the run.
        best_weights: those with the lowest validation log loss in this phase.
        best_loss: that loss; infinity before the first validation.
        networks: the weights that never change.
        strategy_state: the server optimiser's arrays.
        phase_index: position in the run's phases; equal to their number when all are done.
        rounds_in_phase: training rounds done in this phase.
        rounds_since_best: validations since the best one.
        round_number: training rounds done over all phases.
        weights_round: of those, the rounds that made the weights: fewer where a phase went back to its best.
        best_round: training rounds that made the best weights.
        discarded: ranges (after, up to) of rounds whose weights were dropped when a phase went back to its best.
        rounds: the lines of rounds.jsonl.
        preprocessing: JSON of the common preprocessing, with which the weights were trained.
        networks_sha256: hash of `networks`.
    """

    weights: dict[str, np.ndarray]
    best_weights: dict[str, np.ndarray]
    best_loss: float = float("inf")
    networks: dict[str, np.ndarray] = field(default_factory=dict)
    strategy_state: dict[str, np.ndarray] = field(default_factory=dict)
    phase_index: int = 0
    rounds_in_phase: int = 0
    rounds_since_best: int = 0
    round_number: int = 0
    weights_round: int = 0
    best_round: int = 0
    discarded: list[tuple[int, int]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    preprocessing: str = ""
    networks_sha256: str = ""

    def __post_init__(self) -> None:
        self.networks_sha256 = self.networks_sha256 or hash_weights(self.networks)

    def whole(self) -> dict[str, np.ndarray]:
        """All weights of the model."""
        return {**self.networks, **self.weights}

    def trained_phases(self) -> tuple[Phase, ...]:
        """The phases of the rounds that made the weights, without those that were dropped."""
        kept = {
            line["phase"]
            for line in self.rounds
            if line["round"] <= self.weights_round
            and not any(after < line["round"] <= last for after, last in self.discarded)
        }
        return tuple(phase for phase in PHASES if phase in kept and self.weights_round)


def save_progress(folder: Path, progress: Progress) -> None:
    """Replace the checkpoint; what never changes has a file of its own, written once."""
    networks = _networks_file(folder, progress.networks_sha256)
    if not networks.exists():
        replace_file(networks, save(progress.networks))
    arrays = {f"{part}:{name}": value for part in _ARRAYS for name, value in getattr(progress, part).items()}
    rest = {key: value for key, value in vars(progress).items() if key not in (*_ARRAYS, _NETWORKS)}
    replace_file(folder / FILE, save(arrays, metadata={"progress": json.dumps(rest)}))


def load_progress(folder: Path) -> Progress:
    """The progress that the last finished round left.

    Raises:
        StudyError: there is no readable checkpoint.
    """
    path = folder / FILE
    parts: dict[str, dict[str, np.ndarray]] = {part: {} for part in _ARRAYS}
    try:
        with safe_open(path, framework="numpy") as file:
            rest: dict[str, Any] = json.loads((file.metadata() or {})["progress"])
            rest["discarded"] = [tuple(span) for span in rest["discarded"]]
            for key in file.keys():  # noqa: SIM118 - not a mapping
                part, _, name = key.partition(":")
                parts[part][name] = file.get_tensor(key)
        networks = load_file(_networks_file(folder, rest["networks_sha256"]))
    except (OSError, SafetensorError, KeyError, ValueError, struct.error) as error:
        raise StudyError(
            f"checkpoint at {path}: expected a finished round, got {error}. Start the run anew."
        ) from error
    return Progress(
        networks=networks,
        weights=parts["weights"],
        best_weights=parts["best_weights"],
        strategy_state=parts["strategy_state"],
        **rest,
    )


def has_progress(folder: Path) -> bool:
    """True if a checkpoint was ever written there."""
    return (folder / FILE).exists()


def _networks_file(folder: Path, sha256: str) -> Path:
    return folder / f"{_NETWORKS}-{sha256[:16]}.safetensors"
