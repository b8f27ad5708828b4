"""Step 5: how good the model is, pooled over patients, and a row for each hospital that may release one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flwr.app import RecordDict
from pydantic import TypeAdapter

from server.protocol.quorum import Attendance
from server.protocol.reduce import PlainSum
from server.protocol.site_rows import hide_rows, load_row
from server.protocol.whole_model import WholeModel
from shared_model.errors import ProtocolError
from shared_model.evaluation.metrics import (
    Metrics,
    calibration_curve,
    decision_curve,
    precision_recall_curve,
    roc_curve,
    summarise,
)
from shared_model.evaluation.score_quantities import score_quantities, unpack_scores
from shared_model.evaluation.score_sums import ScoreSums
from shared_model.privacy.suppression import PATIENTS_PER_BIN, SmallCellRule, suppressed_row
from shared_model.protocol.messages import EVALUATE, EvaluateReply, EvaluateRequest, Part
from shared_model.protocol.quantities import MAX_PATIENTS

_METRICS = TypeAdapter(Metrics)


def score_part(model: WholeModel, part: Part) -> tuple[Metrics, Attendance]:
    """Pooled metrics of a model on one part.

    Raises:
        StudyError: no quorum.
    """
    sums, _, attendance = _ask(model, part)
    return summarise(sums), attendance


def evaluate_test(model: WholeModel) -> tuple[dict[str, Any], ScoreSums]:
    """The test part, touched once.

    Returns:
        The `test` entry of metrics.json, and the score sums of all hospitals together, which stay with the coordinator.

    Raises:
        StudyError: no quorum.
    """
    sums, rows, attendance = _ask(model, "test")
    return {**describe_scores(sums, rows, model.plan.rule), "failed": attendance.failed}, sums


def describe_scores(sums: ScoreSums, rows: Mapping[str, Mapping[str, Any]], rule: SmallCellRule) -> dict[str, Any]:
    """What may be shown of an evaluation: pooled metrics, their curves, the hospitals' own rows.

    Args:
        sums: of all hospitals together.
        rows: by hospital, the metrics that it released, or the suppressed row.
        rule: small-cell rule. A released row is hidden where subtracting it from the pooled one would reveal a small
            group.
    """
    metrics = summarise(sums)
    allowed, sites = hide_rows(rows, n=metrics.n, events=metrics.events, rule=rule, known_rows=1)
    if not allowed:
        return {"pooled": suppressed_row(), "sites": sites}
    apart = max(PATIENTS_PER_BIN, rule.min_patients)
    curves = {
        "roc": roc_curve(sums, min_patients=apart),
        "precision_recall": precision_recall_curve(sums, min_patients=apart),
        "calibration": calibration_curve(sums, min_patients=apart),
        "decision": decision_curve(sums, min_patients=apart),
    }
    return {"pooled": metrics.to_dict(), "sites": sites, "curves": curves}


def _parse_row(text: str, rule: SmallCellRule) -> Mapping[str, Any]:
    """A hospital's own row, or the suppressed row where it must not be shown.

    Raises:
        ProtocolError: not a row of metrics.
    """
    if text == json.dumps(suppressed_row()):
        return suppressed_row()
    try:
        row = load_row(text)
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        metrics = _METRICS.validate_python(fields)
        if set(row) != set(metrics.to_dict()) or row["n"] > MAX_PATIENTS:
            raise ValueError("row")  # noqa: TRY301 - handled with pydantic's own
        allowed = rule.may_release(n=metrics.n, events=metrics.events)
    except (ValueError, AttributeError, KeyError) as error:
        raise ProtocolError("own row: expected the agreed metrics, got something else.") from error
    return metrics.to_dict() if allowed else suppressed_row()


def _ask(model: WholeModel, part: Part) -> tuple[ScoreSums, dict[str, Mapping[str, Any]], Attendance]:
    total = PlainSum(score_quantities(), agrees=unpack_scores)
    rows: dict[str, Mapping[str, Any]] = {}

    def accept(node: int, record: RecordDict) -> None:
        reply = EvaluateReply.from_record(record)
        row = _parse_row(reply.row, model.plan.rule)
        name = model.plan.roster.names[node]
        total.add(reply.arrays, where=name)
        rows[name] = row

    attendance = model.ask(EVALUATE, EvaluateRequest, accept=accept, part=part, release_row=part == "test")
    return unpack_scores(total.total()), dict(sorted(rows.items())), attendance
