"""Step 6 of a run: a common background, the hospitals' summed Shapley values, and the spread between hospitals."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from server.protocol.quorum import Attendance
from server.protocol.whole_model import WholeModel
from shared_model.errors import StudyError
from shared_model.model.fusion import MultimodalModel, empty_model
from shared_model.protocol.messages import BackgroundRequest, ExplainRequest, Part, SpreadRequest
from shared_model.shapley.common_background import draw_rows, hash_background
from shared_model.shapley.game import as_rows
from shared_model.shapley.shares import tau_squared
from shared_model.shapley.valid_rows import embedding_columns, make_valid
from shared_model.training.losses import logit_correction
from shared_model.training.updates import Weights, to_tensors

log = logging.getLogger("hipfed.server")

Sums = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class CommonBackground:
    """Synthetic reference patients, as a question carries them.

    Attributes:
        background_id: hash of the rows and of the model.
        embeddings: per modality.
        present: per modality, whether the row has it.
        base_logit: mean logit of the rows, the event weight taken out: what a patient's phi are added to. None where
            each hospital has a head, and so a base, of its own.
    """

    background_id: str
    base_logit: float | None
    embeddings: dict[str, np.ndarray]
    present: dict[str, np.ndarray]


@dataclass(frozen=True)
class ExplainedPart:
    """What all hospitals' patients of one part tell together.

    Attributes:
        total: sums as `explanation_quantities` lists them, with the random-effects sums at tau^2 = 0.
        spread: the random-effects sums at the estimated tau^2; None with fewer than two hospitals.
        tau2: variance of the share between hospitals, per modality; NaN with fewer than two.
        i2: part of the spread that is more than chance, per modality.
        rows: by hospital, the shares that it released, or the suppressed row.
        attendance: who answered.
        spread_failed: reason by hospital that answered, but not the question for the random-effects sums.
    """

    total: Sums
    spread: Sums | None
    tau2: np.ndarray
    i2: np.ndarray
    rows: dict[str, dict[str, Any]]
    attendance: Attendance
    spread_failed: dict[str, str]


def draw_background(model: WholeModel, weights: Weights) -> CommonBackground:
    """Ask for sums of the training part's embeddings and draw reference patients from their total.

    Raises:
        StudyError: no quorum.
    """
    plan = model.plan
    shape = _model_with(weights, model)
    columns = embedding_columns(shape, plan.schema)
    sums = model.ask(BackgroundRequest, part="train").sums
    draw = draw_rows(columns, sums, n_rows=plan.settings.background_rows, seed=plan.settings.seed)
    embeddings = make_valid(draw, sums, model=shape, schema=plan.schema, preprocessing=plan.preprocessing)
    base: float | None = None
    if "head" not in shape.home_parts():
        rows = as_rows(embeddings, draw.present, device=torch.device("cpu"))
        with torch.no_grad():
            base = float(shape.eval().fuse(rows.embeddings, rows.present).double().mean())
        base += logit_correction(plan.event_weight)
    return CommonBackground(
        background_id=hash_background(model.sha256, embeddings, draw.present),
        base_logit=base,
        embeddings=embeddings,
        present=draw.present,
    )


def explain_part(model: WholeModel, background: CommonBackground, *, part: Part, features: bool) -> ExplainedPart:
    """Ask for the summed Shapley values of one part, then for the random-effects sums at the tau^2 they give.

    Raises:
        StudyError: no quorum.
    """
    question: dict[str, Any] = {
        "background_id": background.background_id,
        "background": background.embeddings,
        "background_present": background.present,
    }
    answers = model.ask(ExplainRequest, part=part, features=features, release_row=True, **question)
    sums, names = answers.sums, model.plan.hospitals.names
    rows = {names[node]: row for node, row in answers.own.items()}
    if not sums["n"][0]:
        raise StudyError(f"explanation: expected patients in the {part} part, got none. Use fewer folds.")
    tau2, i2 = tau_squared(sums)
    spread: Sums | None = None
    spread_failed: dict[str, str] = {}
    if np.isfinite(tau2).all():
        told = model.ask(SpreadRequest, part=part, tau2=tuple(tau2.tolist()), **question)
        spread, spread_failed = told.sums, told.attendance.failed
        for name, reason in spread_failed.items():
            log.warning("spread between hospitals: %s is missing: %s", name, reason)
    return ExplainedPart(sums, spread, tau2, i2, dict(sorted(rows.items())), answers.attendance, spread_failed)


def _model_with(weights: Weights, model: WholeModel) -> MultimodalModel:
    shape = empty_model(model.plan.schema, model.plan.settings, device=torch.device("cpu"))
    shape.set_weights(to_tensors(weights))
    return shape
