"""Step 2: data quality. Each hospital judges itself against the sums of the others; red ones take no part in the run.

Why before the statistics: a hospital that is refused afterwards would already be in them, and gathering them twice
would tell its sums, as the difference of two totals. So the step has sums of its own, which nothing is fitted to.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from server.protocol.hospitals import Hospitals
from server.protocol.quorum import Attendance, require_quorum
from server.protocol.roster import Roster
from server.run_folder.quality_findings import describe_findings
from shared_model.config import Settings
from shared_model.privacy.suppression import suppressed_row
from shared_model.protocol.messages import QualityRequest, ReferenceRequest
from shared_model.quality.checks import CORRELATED, LIMITS, QualityReport, accepted_names, two_digits
from shared_model.quality.measures import (
    CORRELATION_SITES,
    CORRELATION_WEIGHT,
    CORRELATION_Z,
    Sums,
    hide_few_sites,
    list_pairs,
)
from shared_model.schema import Schema

log = logging.getLogger("hipfed.server")


@dataclass(frozen=True)
class Judgement:
    """What the hospitals said of their data.

    Attributes:
        reports: by hospital; None where the small-cell rule hides it.
        failed: reason by hospital, for those that did not answer one of the two questions.
        reference: sums over the hospitals, as they were told.
    """

    reports: Mapping[str, QualityReport | None]
    failed: Mapping[str, str]
    reference: Sums


def judge_quality(hospitals: Hospitals) -> Judgement:
    """Ask for the reference sums, then for each hospital's own row.

    Raises:
        StudyError: no quorum for the reference; without rows of some hospitals the run goes on.
    """
    study, min_sites = hospitals.study, hospitals.settings.min_sites
    first = hospitals.ask(ReferenceRequest(study=study))
    require_quorum(first.attendance, min_sites=min_sites, step="data quality")
    reference, answered = hide_few_sites(first.sums, min_sites=min_sites), first.attendance.answered
    request = QualityRequest(study=study, n_sites=len(answered), reference=reference)
    second = hospitals.only(answered).ask(request)
    reports = {hospitals.names[node]: report for node, report in second.own.items()}
    failed = {**first.attendance.failed, **second.attendance.failed}
    return Judgement(dict(sorted(reports.items())), failed, reference)


def describe_quality(judged: Judgement, *, schema: Schema, settings: Settings) -> dict[str, Any]:
    """What quality.json says."""
    accepted = accepted_names(settings)
    hospitals = {
        name: suppressed_row()
        if report is None
        else {"grade": report.grade, "refused": report.grade == "red" and name not in accepted, **report.to_row()}
        for name, report in judged.reports.items()
    }
    return {
        "hospitals": hospitals,
        "failed": dict(sorted(judged.failed.items())),
        "correlated": _describe_correlated(judged.reference, schema, settings),
        "limits": {
            check: {"number": limit.number, "amber": limit.amber, "red": limit.red} for check, limit in LIMITS.items()
        },
    }


def _describe_correlated(reference: Sums, schema: Schema, settings: Settings) -> list[dict[str, Any]]:
    """Pairs that are strongly correlated over all hospitals together: they split their attribution everywhere."""
    weight = reference[CORRELATION_WEIGHT]
    known = (weight > 0.5) & (np.rint(reference[CORRELATION_SITES]) >= settings.min_sites)
    r = np.tanh(reference[CORRELATION_Z] / np.where(known, weight, 1.0))
    strong = np.flatnonzero(known & (np.abs(r) >= LIMITS[CORRELATED].amber))
    pairs = list_pairs(schema, settings.chosen_modalities(schema))
    return [{"modality": pairs[k][0], "pair": pairs[k][1], "r": two_digits(float(r[k]))} for k in strong.tolist()]


def exclude_refused(roster: Roster, quality: Mapping[str, Any]) -> Roster:
    """The roster without the hospitals that quality.json calls refused, or says nothing of; each with the reason.

    It says nothing of a hospital that came after the others were judged: only a resumed run meets one.
    """
    entries, known = quality["hospitals"], {*quality["hospitals"], *quality["failed"]}
    refused = {}
    for name in roster.names.values():
        if name not in known:
            refused[name] = (
                "data quality: expected a hospital that was there when the others were judged, got one that came to a "
                "resumed run. Let it take part in a new run."
            )
        elif entries.get(name, {}).get("refused"):
            refused[name] = describe_refusal(name, entries[name])
    names = {node: name for node, name in roster.names.items() if name not in refused}
    return replace(roster, names=names, excluded=dict(sorted({**roster.excluded, **refused}.items())))


def require_hospitals(agreed: Roster, left: Roster, *, settings: Settings) -> None:
    """Enough hospitals are left.

    Raises:
        StudyError: fewer than `min-sites`; the message names every exclusion.
    """
    attendance = Attendance(asked=sorted(agreed.names.values()), answered=sorted(left.names.values()))
    attendance.failed = left.excluded
    require_quorum(attendance, min_sites=settings.min_sites, step="data quality")


def warn_of_quality(roster: Roster, quality: Mapping[str, Any], *, settings: Settings) -> None:
    """Log what the coordinator should look at and the run goes on with."""
    for name, reason in quality["failed"].items():
        log.warning("data quality of %s is not known: %s", name, reason)
    present = set(roster.names.values())
    for name in sorted(present & set(quality["hospitals"])):
        entry = quality["hospitals"][name]
        found = describe_findings(entry)
        if found:
            log.warning("data quality of %s: %s", name, found)
        if entry.get("suppressed"):
            log.warning("data quality of %s is not known: it may not be told of so few patients", name)
    for name in sorted(accepted_names(settings) - present):
        log.warning("accept-red: %s does not take part", name)


def describe_refusal(name: str, entry: Mapping[str, Any]) -> str:
    """Why a hospital takes no part, and how to let it."""
    return (
        f"data quality: expected no red finding, got {describe_findings(entry, only='red')}. Correct the hospital's "
        f"export, or accept it by name in a new run: --set accept-red={name}"
    )
