"""The gate: the only way out of a hospital for anything computed from patients.

What passes is on the protocol's allow-list (names, shapes, ranges), rests on enough patients, and leaves a line in the
hospital's audit log. Whatever fails stays inside and the coordinator is told the rule's name.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt64

from shared_model.config import Settings
from shared_model.errors import SuppressedError
from shared_model.privacy.suppression import SmallCellRule, suppressed_row
from shared_model.protocol.messages import Request
from shared_model.protocol.quantities import MASKED, Quantities, check_arrays, pack_integers
from shared_model.protocol.questions import find_question
from shared_model.quality.checks import LIMITS, QualityReport, check_report
from shared_model.schema import Schema


@dataclass(frozen=True)
class Gate:
    """The hospital's disclosure rule and audit log.

    Attributes:
        rule: smallest groups that may be released.
        audit_log: JSON lines, one for each release.
        run_id: of the study run that asks.
        kind: of the question, for the audit log.
        quantities: the arrays that may leave in the answer; looked at when they are to.
        mask: what hides them from everybody but the total; None where the study's sums are not secure.
    """

    rule: SmallCellRule
    audit_log: Path
    run_id: str
    kind: str
    quantities: Callable[[], Quantities]
    mask: Callable[[UInt64[np.ndarray, "n"]], UInt64[np.ndarray, "n"]] | None = None

    @classmethod
    def of(cls, request: Request, rule: SmallCellRule, *, schema: Schema, settings: Settings, audit_log: Path) -> Gate:
        """The gate for the answer to one question, with what the protocol allows in it.

        Args:
            request: the question.
            rule: the hospital's own, as far as the study tightens it.
            schema: the hospital's.
            settings: of the study.
            audit_log: where a line for each release goes.
        """
        question = find_question(request)
        return cls(
            rule,
            audit_log,
            request.study.run_id,
            question.kind,
            partial(question.quantities, request, schema, settings),
        )

    def release_sums(self, arrays: Mapping[str, np.ndarray], *, n_patients: int) -> dict[str, np.ndarray]:
        """Arrays that are going to be added over hospitals, as they leave: masked, where the sum is a secure one.

        Args:
            arrays: what would leave.
            n_patients: patients of the hospital that take part.

        Raises:
            SuppressedError: fewer patients than the rule's `min_patients`.
            ProtocolError: something is not on the allow-list.
        """
        if n_patients < self.rule.min_patients:
            raise SuppressedError(f"{self.kind}: expected at least {self.rule.min_patients} patients, got fewer.")
        quantities = self.quantities()
        check_arrays(arrays, quantities, where=self.kind)
        self._log(self.kind, arrays)
        return {MASKED: self.mask(pack_integers(arrays, quantities))} if self.mask else dict(arrays)

    def release_row(self, row: Mapping[str, object], *, n: int, events: int) -> str:
        """The hospital's own row as JSON, or the suppressed row, which looks the same whatever the reason."""
        allowed = self.rule.may_release(n=n, events=events)
        text = json.dumps(row if allowed else suppressed_row(), sort_keys=True)
        self._log(f"{self.kind}, own row", {"json": np.frombuffer(text.encode(), dtype=np.uint8)})
        return text

    def release_report(self, report: QualityReport, *, modalities: Collection[str], n: int, events: int) -> str:
        """The hospital's data-quality row as JSON, or the suppressed row where it has too few patients.

        Args:
            report: what would leave; findings by outcome stay where events or non-events are too few.
            modalities: of the study.
            n: patients that it rests on.
            events: of them with outcome 1.

        Raises:
            ProtocolError: a check, a name or a number is not one that may leave.
        """
        check_report(report, modalities)
        if not self.rule.may_release(n=n, events=events):
            kept = tuple(finding for finding in report.findings if not LIMITS[finding.check].by_outcome)
            report = replace(report, by_outcome=False, findings=kept)
        row = report.to_row() if n >= self.rule.min_patients else suppressed_row()
        text = json.dumps(row, sort_keys=True, allow_nan=False)
        self._log(f"{self.kind}, own row", {"json": np.frombuffer(text.encode(), dtype=np.uint8)})
        return text

    def _log(self, kind: str, arrays: Mapping[str, np.ndarray]) -> None:
        digest = hashlib.sha256()
        for name in sorted(arrays):
            digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "run_id": self.run_id,
            "kind": kind,
            "arrays": len(arrays),
            "bytes": sum(array.nbytes for array in arrays.values()),
            "sha256": digest.hexdigest(),
        }
        with self.audit_log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
