"""Step 5: how good the model is, pooled over patients, and a row for each hospital that may release one."""

from collections.abc import Mapping
from typing import Any

from server.protocol.quorum import Attendance
from server.protocol.site_rows import hide_rows
from server.protocol.whole_model import WholeModel
from shared_model.evaluation.metrics import (
    Metrics,
    calibration_curve,
    decision_curve,
    precision_recall_curve,
    roc_curve,
    summarise,
)
from shared_model.evaluation.score_quantities import unpack_scores
from shared_model.evaluation.score_sums import ScoreSums
from shared_model.privacy.suppression import PATIENTS_PER_BIN, SmallCellRule, suppressed_row
from shared_model.protocol.messages import EvaluateRequest, Part


def score_part(model: WholeModel, part: Part) -> tuple[Metrics, Attendance]:
    """Pooled metrics of a model on one part.

    Raises:
        StudyError: no quorum.
    """
    answers = model.ask(EvaluateRequest, part=part, release_row=False)
    return summarise(unpack_scores(answers.sums)), answers.attendance


def evaluate_test(model: WholeModel) -> tuple[dict[str, Any], ScoreSums]:
    """The test part, touched once.

    Returns:
        The `test` entry of metrics.json, and the score sums of all hospitals together, which stay with the coordinator.

    Raises:
        StudyError: no quorum.
    """
    answers = model.ask(EvaluateRequest, part="test", release_row=True)
    names, sums = model.plan.hospitals.names, unpack_scores(answers.sums)
    rows = {names[node]: answers.own[node] for node in sorted(answers.own, key=names.__getitem__)}
    return {**describe_scores(sums, rows, model.plan.rule), "failed": answers.attendance.failed}, sums


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
