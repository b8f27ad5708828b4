"""Step 4: how good the model is, pooled over patients, and a row for each hospital that may release one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flwr.app import RecordDict
from pydantic import TypeAdapter

from server.checkpoints import Progress
from server.link import Link
from server.plan import StudyPlan
from server.quorum import Attendance, ask_sites, require_quorum
from server.reduce import PlainSum
from shared_model.config import Phase
from shared_model.errors import ProtocolError, SuppressedError
from shared_model.messages import EVALUATE, EvaluateReply, EvaluateRequest, Part
from shared_model.metrics import (
    Metrics,
    calibration_curve,
    decision_curve,
    precision_recall_curve,
    roc_curve,
    summarise,
)
from shared_model.privacy.suppression import SiteRow, SmallCellRule, suppressed_row
from shared_model.quantities import MAX_PATIENTS
from shared_model.score_quantities import score_quantities, unpack_scores
from shared_model.score_sums import ScoreSums

_METRICS = TypeAdapter(Metrics)


def score_part(
    link: Link, plan: StudyPlan, progress: Progress, *, phase: Phase, part: Part
) -> tuple[Metrics, Attendance]:
    """Pooled metrics of the current weights on one part.

    Raises:
        StudyError: no quorum.
    """
    sums, _, attendance = _ask(link, plan, progress, phase=phase, part=part)
    return summarise(sums), attendance


def evaluate_test(link: Link, plan: StudyPlan, progress: Progress) -> tuple[dict[str, Any], ScoreSums]:
    """The test part, touched once.

    Returns:
        The `test` entry of metrics.json, and the score sums of all hospitals together, which stay with the coordinator.

    Raises:
        StudyError: no quorum.
    """
    phase = plan.settings.phases[-1]
    sums, rows, attendance = _ask(link, plan, progress, phase=phase, part="test")
    return {**describe_scores(sums, rows, plan.rule), "failed": attendance.failed}, sums


def describe_scores(sums: ScoreSums, rows: Mapping[str, Mapping[str, Any]], rule: SmallCellRule) -> dict[str, Any]:
    """What may be shown of an evaluation: pooled metrics, their curves, the hospitals' own rows.

    Args:
        sums: of all hospitals together.
        rows: by hospital, the metrics that it released, or the suppressed row.
        rule: small-cell rule. A released row is hidden where subtracting it from the pooled one would reveal a small
            group.
    """
    metrics = summarise(sums)
    hidden = suppressed_row()
    try:
        further = rule.complementary(_site_rows(rows, metrics))
        allowed = rule.may_release(n=metrics.n, events=metrics.events)
    except SuppressedError:
        further, allowed = frozenset(rows), False
    sites = {name: hidden if name in further else dict(row) for name, row in rows.items()}
    if not allowed:
        return {"pooled": hidden, "sites": sites}
    curves = {
        "roc": roc_curve(sums),
        "precision_recall": precision_recall_curve(sums),
        "calibration": calibration_curve(sums),
        "decision": decision_curve(sums),
    }
    return {"pooled": metrics.to_dict(), "sites": sites, "curves": curves}


def _site_rows(rows: Mapping[str, Mapping[str, Any]], pooled: Metrics) -> dict[str, SiteRow]:
    """Counts as any reader can know them: of released rows, and for the hidden ones what is left, spread evenly."""
    released = {name: row for name, row in rows.items() if row != suppressed_row()}
    n_left = pooled.n - sum(int(row["n"]) for row in released.values())
    events_left = pooled.events - sum(int(row["events"]) for row in released.values())
    hidden = sorted(set(rows) - set(released))
    site_rows = {
        name: SiteRow(n=int(row["n"]), events=int(row["events"]), released=True) for name, row in released.items()
    }
    for i, name in enumerate(hidden):
        n, events = (left // len(hidden) + (i < left % len(hidden)) for left in (n_left, events_left))
        site_rows[name] = SiteRow(n=max(n, events), events=events, released=False)
    return site_rows


def _parse_row(text: str, rule: SmallCellRule) -> Mapping[str, Any]:
    """A hospital's own row, or the suppressed row where it must not be shown.

    Raises:
        ProtocolError: not a row of metrics.
    """
    if text == json.dumps(suppressed_row()):
        return suppressed_row()
    try:
        row = json.loads(text, parse_constant=_refuse_constant)
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        metrics = _METRICS.validate_python(fields)
        if set(row) != set(metrics.to_dict()) or row["n"] > MAX_PATIENTS:
            raise ValueError("row")  # noqa: TRY301 - handled with pydantic's own
        allowed = rule.may_release(n=metrics.n, events=metrics.events)
    except (ValueError, AttributeError, KeyError) as error:
        raise ProtocolError("own row: expected the agreed metrics, got something else.") from error
    return metrics.to_dict() if allowed else suppressed_row()


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # JSON has no NaN and no infinity


def _ask(
    link: Link, plan: StudyPlan, progress: Progress, *, phase: Phase, part: Part
) -> tuple[ScoreSums, dict[str, Mapping[str, Any]], Attendance]:
    total = PlainSum(score_quantities(), agrees=unpack_scores)
    rows: dict[str, Mapping[str, Any]] = {}

    def accept(node: int, record: RecordDict) -> None:
        reply = EvaluateReply.from_record(record)
        row = _parse_row(reply.row, plan.rule)
        total.add(reply.arrays, where=plan.roster.names[node])
        rows[plan.roster.names[node]] = row

    request = EvaluateRequest(
        study=plan.study,
        phase=phase,
        weights_round=progress.weights_round,
        part=part,
        release_row=part == "test",
        preprocessing=plan.preprocessing.to_json(),
        event_weight=plan.event_weight,
        weights=progress.weights,
    )
    attendance = ask_sites(
        link,
        EVALUATE,
        dict.fromkeys(plan.roster.names, request.to_record()),
        names=plan.roster.names,
        deadline_s=plan.settings.deadline_s,
        accept=accept,
    )
    require_quorum(attendance, min_sites=plan.settings.min_sites, step=f"evaluation ({part})")
    return unpack_scores(total.total()), dict(sorted(rows.items())), attendance
