"""Step 6 of a run: a common background, the hospitals' summed Shapley values, and the spread between hospitals."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from server.protocol.quorum import Attendance
from server.protocol.reduce import PlainSum
from server.protocol.site_rows import load_row
from server.protocol.whole_model import WholeModel
from shared_model.errors import ProtocolError, StudyError
from shared_model.model.fusion import MultimodalModel, empty_model
from shared_model.privacy.suppression import SmallCellRule, suppressed_row
from shared_model.protocol.messages import (
    BACKGROUND,
    EXPLAIN,
    SPREAD,
    BackgroundRequest,
    ExplainReply,
    ExplainRequest,
    Part,
    SpreadRequest,
    SumsReply,
)
from shared_model.protocol.quantities import MAX_PATIENTS
from shared_model.shapley.common_background import background_quantities, draw_rows, hash_background
from shared_model.shapley.explanation_quantities import explanation_quantities, spread_quantities
from shared_model.shapley.game import as_rows
from shared_model.shapley.shares import tau_squared
from shared_model.shapley.summary import check_sums
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
    total = PlainSum(background_quantities(columns))

    def accept(node: int, record: RecordDict) -> None:
        total.add(SumsReply.from_record(record).arrays, where=plan.roster.names[node])

    model.ask(BACKGROUND, BackgroundRequest, accept=accept, part="train")
    sums = total.total()
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
    plan = model.plan
    shape = empty_model(plan.schema, plan.settings, device=torch.device("meta"))
    quantities = explanation_quantities(
        shape, plan.schema, plan.settings, preprocessing=plan.preprocessing, features=features
    )
    total = PlainSum(quantities, agrees=check_sums)
    rows: dict[str, dict[str, Any]] = {}

    def accept(node: int, record: RecordDict) -> None:
        reply = ExplainReply.from_record(record)
        row = parse_shares(reply.row, plan.rule, shape.modalities)
        check_row_counts(row, reply.arrays)
        total.add(reply.arrays, where=plan.roster.names[node])
        rows[plan.roster.names[node]] = row

    question: dict[str, Any] = {
        "background_id": background.background_id,
        "background": background.embeddings,
        "background_present": background.present,
    }
    attendance = model.ask(
        EXPLAIN, ExplainRequest, part=part, accept=accept, features=features, release_row=True, **question
    )
    sums = total.total()
    if not sums["n"][0]:
        raise StudyError(f"explanation: expected patients in the {part} part, got none. Use fewer folds.")
    tau2, i2 = tau_squared(sums)
    spread: Sums | None = None
    spread_failed: dict[str, str] = {}
    if np.isfinite(tau2).all():
        spread, spread_failed = _ask_spread(model, part, question, tau2)
    return ExplainedPart(sums, spread, tau2, i2, dict(sorted(rows.items())), attendance, spread_failed)


def _ask_spread(
    model: WholeModel, part: Part, question: Mapping[str, Any], tau2: np.ndarray
) -> tuple[Sums, dict[str, str]]:
    total = PlainSum(spread_quantities(len(tau2)))

    def accept(node: int, record: RecordDict) -> None:
        total.add(SumsReply.from_record(record).arrays, where=model.plan.roster.names[node])

    attendance = model.ask(SPREAD, SpreadRequest, part=part, accept=accept, tau2=tuple(tau2.tolist()), **question)
    for name, reason in attendance.failed.items():
        log.warning("spread between hospitals: %s is missing: %s", name, reason)
    return total.total(), attendance.failed


class _ModalityRow(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    share: float | None = Field(ge=0, le=1)
    share_ci: list[float | None] = Field(min_length=2, max_length=2)
    mean_abs: float = Field(ge=0)


class _SharesRow(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)

    n: int = Field(ge=0, le=MAX_PATIENTS)
    events: int = Field(ge=0, le=MAX_PATIENTS)
    modalities: dict[str, _ModalityRow]


def parse_shares(text: str, rule: SmallCellRule, modalities: tuple[str, ...]) -> dict[str, Any]:
    """A hospital's own shares, or the suppressed row where they must not be shown.

    Raises:
        ProtocolError: not a row of shares.
    """
    try:
        content = load_row(text)
        if content == suppressed_row():
            return dict(suppressed_row())
        row = _SharesRow.model_validate(content)
        if set(row.modalities) != set(modalities):
            raise ValueError("modalities")  # noqa: TRY301 - handled with pydantic's own
        allowed = rule.may_release(n=row.n, events=row.events)
    except (ValidationError, ValueError) as error:
        raise ProtocolError("own shares: expected the agreed numbers, got something else.") from error
    return row.model_dump() if allowed else dict(suppressed_row())


def check_row_counts(row: Mapping[str, Any], arrays: Sums) -> None:
    """A released row tells the counts of the sums beside it: what is hidden with it is chosen by these counts.

    Raises:
        ProtocolError: other counts, or none.
    """
    if row == suppressed_row():
        return
    for name in ("n", "events"):
        counts = np.asarray(arrays.get(name, ())).ravel()
        if not len(counts) or float(counts[0]) != row[name]:
            raise ProtocolError("own shares: expected the counts of the sums beside them, got others.")


def _model_with(weights: Weights, model: WholeModel) -> MultimodalModel:
    shape = empty_model(model.plan.schema, model.plan.settings, device=torch.device("cpu"))
    shape.set_weights(to_tensors(weights))
    return shape
