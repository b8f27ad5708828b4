"""A run folder at the hospital: the finished model, its preprocessing and the common background, checked before use."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, load_file

from client.site import Site
from client.worker.local_model import embedding_key
from client.worker.run_state import RunState, missing_parts
from shared_model.config import Phase, Settings, parse_settings
from shared_model.errors import SettingsError, StudyError
from shared_model.model.fusion import MultimodalModel, empty_model
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.shapley.common_background import hash_background
from shared_model.shapley.game import Background, as_rows
from shared_model.training.updates import hash_weights, to_tensors


@dataclass(frozen=True)
class RunModel:
    """What a finished run left.

    Attributes:
        folder: of the run.
        run_id: of the run.
        model: in eval mode.
        settings: of the run.
        preprocessing: the common one.
        model_hash: of the weights.
        networks_sha256: hash of the networks that stayed fixed.
        event_weight: that the logits are to be corrected for.
        phase: which prediction counts.
        rounds: that made the weights, and ranges of rounds whose weights were dropped.
    """

    folder: Path
    run_id: str
    model: MultimodalModel
    settings: Settings
    preprocessing: Preprocessing
    model_hash: str
    networks_sha256: str
    event_weight: float
    phase: Phase
    rounds: tuple[int, tuple[tuple[int, int], ...]]

    def knows(self, site: Site) -> bool:
        """True if the hospital's state shows that it took part in the run with the patients that its folder holds."""
        weights = (self.model_hash, *self.rounds)
        key = embedding_key(site, self.preprocessing, encoders=self.model.modalities, weights=weights)
        return RunState.of(site.state_dir, self.run_id).has_embeddings("test", key)


@dataclass(frozen=True)
class ExplainedRunModel(RunModel):
    """What a finished and explained run left.

    Attributes:
        background: the common one.
    """

    background: Background


def open_model(run: Path, site: Site, *, device: torch.device) -> RunModel:
    """The model of a run folder, to score this hospital's patients with.

    Raises:
        StudyError: the folder is not that of a finished run, or its files do not fit together.
        SettingsError: the run is of another study than the hospital's data, or keeps layers that are not here.
    """
    with _files_of(run, "finished run"):
        _read_json(run / "metrics.json")  # without it the run was stopped before its model was tested
        return _open_model(run, site, device=device)


def open_run(run: Path, site: Site, *, device: torch.device) -> ExplainedRunModel:
    """The model of a run folder and its common background, to explain this hospital's patients with.

    Raises:
        StudyError: the folder is not that of a finished, explained run, or its files do not fit together.
        SettingsError: the run is of another study than the hospital's data, or keeps layers that are not here.
    """
    with _files_of(run, "finished and explained run", "; a run with explain=none cannot be used"):
        explanations = _read_json(run / "explanations.json", of="finished and explained run (explain is not none)")
        model = _open_model(run, site, device=device)
        background = _read_background(run, model.model_hash, explanations, device=device)
        return ExplainedRunModel(**vars(model), background=background)


@contextmanager
def _files_of(run: Path, what: str, remark: str = "") -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise StudyError(
            f"{run}: expected the files of a {what}, got others ({type(error).__name__}). Copy it again{remark}."
        ) from error


def _open_model(run: Path, site: Site, *, device: torch.device) -> RunModel:
    description, config = _read_json(run / "model.json"), _read_json(run / "config.json")
    if description["schema_sha256"] != site.schema.sha256:
        raise SettingsError(
            f"schema: expected the study of {run}, got another beside the data. Use the run's own schema.toml."
        )
    settings = parse_settings(description["settings"])
    model = empty_model(site.schema, settings, device=device)
    weights = _read_weights(run, description)
    if set(weights) != set(model.learned_names()):
        raise StudyError(f"{run / 'model.safetensors'}: expected the model's weights, got other names.")
    model.set_weights(to_tensors(weights))
    _load_own_parts(model, site, config["run_id"], description)
    return RunModel(
        folder=run,
        run_id=config["run_id"],
        model=model.eval(),
        settings=settings,
        preprocessing=Preprocessing.from_json(description["preprocessing"]),
        model_hash=description["weights_sha256"],
        networks_sha256=hash_weights({name: weights[name] for name in model.fixed_networks()}),
        event_weight=description["event_weight"],
        phase=settings.phases[-1],
        rounds=(int(description["rounds"]), _spans(description)),
    )


def _read_json(path: Path, *, of: str = "finished run") -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: expected a file of a {of}, got: {error}.") from error
    return content


def _read_weights(run: Path, description: dict[str, Any]) -> dict[str, np.ndarray]:
    path = run / "model.safetensors"
    try:
        content = path.read_bytes()
        weights = load(content)
    except (OSError, SafetensorError) as error:
        raise StudyError(f"{path}: expected the run's weights, got: {error}.") from error
    is_same = hashlib.sha256(content).hexdigest() == description["file_sha256"]
    if not is_same or hash_weights(weights) != description["weights_sha256"]:
        raise StudyError(f"{path}: expected the weights that model.json describes, got others. Copy the run again.")
    return weights


def _load_own_parts(model: MultimodalModel, site: Site, run_id: str, description: dict[str, Any]) -> None:
    state = RunState.of(site.state_dir, run_id)
    own = state.load_home(model, before_round=description["rounds"], discarded=_spans(description))
    if missing := missing_parts(model, own, description["trained_phases"]):
        raise SettingsError(
            f"{missing}: expected this hospital's own, which never leave it, got none in its cache. "
            "Such a model works only where it was trained: name that cache with --cache."
        )


def _spans(description: dict[str, Any]) -> tuple[tuple[int, int], ...]:
    return tuple((int(after), int(last)) for after, last in description["discarded_rounds"])


def _read_background(run: Path, model_hash: str, explanations: dict[str, Any], *, device: torch.device) -> Background:
    path = run / "background.safetensors"
    try:
        arrays = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StudyError(f"{path}: expected the run's common background, got: {error}.") from error
    parts: dict[str, dict[str, np.ndarray]] = {"embedding": {}, "present": {}}
    for key, value in arrays.items():
        kind, _, name = key.partition("/")
        parts[kind][name] = value if kind == "embedding" else value.astype(bool)
    found = hash_background(model_hash, parts["embedding"], parts["present"])
    if found != explanations["background_id"]:
        raise StudyError(
            f"{path}: expected the background {explanations['background_id'][:12]} of explanations.json, got "
            f"{found[:12]}. Copy the run again."
        )
    return Background(as_rows(parts["embedding"], parts["present"], device=device), found)
