"""The gate: the only way out of a hospital for anything computed from patients.

What passes is on the protocol's allow-list (names, shapes, ranges), rests on enough patients, and leaves a line in the
hospital's audit log. Whatever fails stays inside and the coordinator is told the rule's name.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from shared_model.errors import SuppressedError
from shared_model.privacy.suppression import SmallCellRule, suppressed_row
from shared_model.protocol.quantities import Quantities, check_arrays
from shared_model.quality.checks import LIMITS, QualityReport, check_report


@dataclass(frozen=True)
class Gate:
    """The hospital's disclosure rule and audit log.

    Attributes:
        rule: smallest groups that may be released.
        audit_log: JSON lines, one for each release.
        run_id: of the study run that asks.
    """

    rule: SmallCellRule
    audit_log: Path
    run_id: str

    def release_sums(
        self, kind: str, arrays: Mapping[str, np.ndarray], quantities: Quantities, *, n_patients: int
    ) -> dict[str, np.ndarray]:
        """Arrays that are going to be added over hospitals.

        Args:
            kind: message kind, for the audit log.
            arrays: what would leave.
            quantities: what may leave.
            n_patients: patients of the hospital that take part.

        Raises:
            SuppressedError: fewer patients than the rule's `min_patients`.
            ProtocolError: something is not on the allow-list.
        """
        if n_patients < self.rule.min_patients:
            raise SuppressedError(f"{kind}: expected at least {self.rule.min_patients} patients, got fewer.")
        check_arrays(arrays, quantities, where=kind)
        self._log(kind, arrays)
        return dict(arrays)

    def release_row(self, kind: str, row: Mapping[str, object], *, n: int, events: int) -> str:
        """The hospital's own row as JSON, or the suppressed row, which looks the same whatever the reason."""
        allowed = self.rule.may_release(n=n, events=events)
        text = json.dumps(row if allowed else suppressed_row(), sort_keys=True)
        self._log(f"{kind}, own row", {"json": np.frombuffer(text.encode(), dtype=np.uint8)})
        return text

    def release_report(
        self, kind: str, report: QualityReport, *, modalities: Collection[str], n: int, events: int
    ) -> str:
        """The hospital's data-quality row as JSON, or the suppressed row where it has too few patients.

        Args:
            kind: message kind, for the audit log.
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
        self._log(f"{kind}, own row", {"json": np.frombuffer(text.encode(), dtype=np.uint8)})
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
