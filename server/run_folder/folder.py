"""The run folder: what the coordinator keeps. Every file is replaced whole, so no reader sees half of one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from shared_model.errors import StudyError
from shared_model.process.files import remove_unfinished, replace_file, rewrite_file

CONFIG = "config.json"
BACKGROUND = "background.safetensors"
TEST_SCORES = "test_scores.safetensors"
State = Literal["running", "completed", "interrupted", "failed"]
CONTINUE = "continue with --resume"


class RunFolder:
    """Paths and writers of one run; made for its owner alone, as a model may remember patients."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file at once."""
        replace_file(self.path / name, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())

    def read_json(self, name: str) -> dict[str, Any]:
        """Content of a JSON file; empty if it does not exist.

        Raises:
            StudyError: it cannot be read.
        """
        path = self.path / name
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        except (OSError, ValueError) as error:
            raise StudyError(f"{path}: expected a JSON file of a run, got: {error}. Run the study again.") from error
        return content

    def write_status(self, state: State, reason: str = "") -> None:
        """Say in status.json whether the run goes on, ended well, was stopped or failed; on a full disk, too."""
        content = json.dumps({"state": state, "reason": reason}, indent=2) + "\n"
        rewrite_file(self.path / "status.json", content.encode())

    def remove_unfinished(self) -> None:
        """Remove what a killed app was writing; only for who holds the app's lock."""
        remove_unfinished(self.path)
        remove_unfinished(self.checkpoints)

    def write_rounds(self, rounds: list[dict[str, Any]]) -> None:
        """Write rounds.jsonl: one line a round."""
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in rounds)
        replace_file(self.path / "rounds.jsonl", text.encode())

    def write_weights(self, weights: Mapping[str, np.ndarray]) -> bytes:
        """Write model.safetensors; the same weights give the same bytes, which are returned."""
        content = save({name: np.ascontiguousarray(weights[name], dtype=np.float32) for name in sorted(weights)})
        replace_file(self.path / "model.safetensors", content)
        return content

    def write_background(self, embeddings: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray]) -> None:
        """Write background.safetensors: the synthetic reference patients that explanations.json rests on."""
        rows = {f"embedding/{name}": value for name, value in embeddings.items()}
        rows |= {f"present/{name}": value.astype(np.uint8) for name, value in present.items()}
        replace_file(self.path / BACKGROUND, save({name: np.ascontiguousarray(rows[name]) for name in sorted(rows)}))

    def write_scores(self, scores: Mapping[str, np.ndarray]) -> None:
        """Keep the pooled test scores' sums among the coordinator's own files: finer than what may be shown."""
        replace_file(self.checkpoints / TEST_SCORES, save({name: np.asarray(scores[name]) for name in sorted(scores)}))

    def read_scores(self) -> dict[str, np.ndarray]:
        """What `write_scores` kept.

        Raises:
            StudyError: the run did not get that far.
        """
        try:
            return load_file(self.checkpoints / TEST_SCORES)
        except (OSError, SafetensorError) as error:
            raise StudyError(f"{self.path}: expected a finished run, got none. Run it again.") from error


def read_status(path: Path) -> tuple[str, str]:
    """State and reason of a run folder; ("missing", "") where there is no status."""
    try:
        status = json.loads((path / "status.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return "missing", ""
    return str(status.get("state", "missing")), str(status.get("reason", ""))
