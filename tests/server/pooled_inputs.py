"""What the head of a finished run sees of all hospitals' training patients together, and its optimum on them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression

from client.site import Site
from server.run_folder.folder import RunFolder
from shared_model.config import Settings
from shared_model.model.fusion import build_model
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.protocol.messages import EVALUATE, EvaluateRequest
from shared_model.schema import load_schema
from shared_model.training.updates import to_tensors
from tests.server.faulty_links import RecordingLink


def fused_training_inputs(
    cohort: Path, folder: RunFolder, settings: Settings, *, names: Sequence[str], cache_dir: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Concatenated fused inputs (patient by width) and outcomes, float64."""
    schema = load_schema(cohort / "schema.toml")
    model = build_model(schema, settings).eval()
    model.set_weights(to_tensors(load_file(folder.path / "model.safetensors")))
    preprocessing = Preprocessing.from_json(json.loads((folder.path / "model.json").read_text())["preprocessing"])
    inputs, outcome = [], []
    for name in names:
        site = Site(name, cohort / name, cache_dir)
        rows = site.split(settings).train
        batch = preprocessing.batch(site.patients, rows, schema=schema, device=torch.device("cpu"))
        with torch.no_grad():
            fused = model.fused_inputs(model.encode(batch), batch.present)
        inputs.append(torch.cat(list(fused.values()), dim=1).double().numpy())
        outcome.append(site.patients.outcome[rows])
    return np.concatenate(inputs), np.concatenate(outcome)


def pooled_optimum(inputs: np.ndarray, outcome: np.ndarray, *, penalty: float) -> np.ndarray:
    """Weights and intercept of scikit-learn's logistic regression with half of penalty * ||w||^2."""
    found = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-12, max_iter=200).fit(inputs, outcome)
    return np.append(found.coef_[0], found.intercept_[0])


def last_head(link: RecordingLink) -> np.ndarray:
    """Weights and intercept of the linear head after the last round, whichever round was the best."""
    weights = next(
        EvaluateRequest.from_record(record) for kind, _, record in link.questions if kind == EVALUATE
    ).weights
    return np.append(weights["head.linear.weight"][0], weights["head.linear.bias"])
