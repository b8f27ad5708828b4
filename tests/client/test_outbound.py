import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.outbound import Gate
from shared_model.errors import ProtocolError, SuppressedError
from shared_model.privacy.suppression import SmallCellRule
from shared_model.protocol.quantities import Quantity
from shared_model.quality.checks import CheckFinding, QualityReport

QUANTITIES = {"sum": Quantity((2,), 100.0, 0.0)}
ROW = {"n": 20, "events": 8, "auc": 0.731}


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    rule = SmallCellRule(min_patients=10, min_events=5, min_non_events=5, min_sites=3)
    return Gate(rule, tmp_path / "audit.jsonl", "run-1", "train", lambda: QUANTITIES)


def _lines(gate: Gate) -> list[dict[str, Any]]:
    if not gate.audit_log.exists():
        return []
    return [json.loads(line) for line in gate.audit_log.read_text().splitlines()]


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"sum": np.array([1.0, 2.0]), "patient-ids": np.array([1.0])},
        {"sum": np.array([1.0, 2.0, 3.0])},
        {"sum": np.array([1.0, np.nan])},
        {"sum": np.array([1.0, 100.5])},
        {"sum": np.array([-1.0, 1.0])},
        {"sum": np.array(["81", "92"])},
    ],
    ids=["missing", "not-on-the-list", "one-a-patient", "nan", "too-large", "negative", "text"],
)
def test_gate_lets_nothing_out_that_is_not_on_the_list(gate: Gate, arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(ProtocolError):
        gate.release_sums(arrays, n_patients=50)

    assert _lines(gate) == []


@pytest.mark.parametrize("n", [0, 9])
def test_gate_refuses_a_hospital_under_min_patients_without_telling_how_many(gate: Gate, n: int) -> None:
    with pytest.raises(SuppressedError) as caught:
        gate.release_sums({"sum": np.array([1.0, 2.0])}, n_patients=n)

    assert str(caught.value) == "train: expected at least 10 patients, got fewer."
    assert _lines(gate) == []


def test_gate_releases_sums_of_enough_patients_as_they_are(gate: Gate) -> None:
    released = gate.release_sums({"sum": np.array([1.5, 2.5])}, n_patients=10)

    assert list(released) == ["sum"]
    np.testing.assert_array_equal(released["sum"], [1.5, 2.5])


def test_gate_writes_a_line_for_each_release_and_no_value(gate: Gate) -> None:
    gate.release_sums({"sum": np.array([61.25, 2.5])}, n_patients=10)
    gate.release_row(ROW, n=20, events=8)

    first, second = _lines(gate)
    assert set(first) == set(second) == {"time", "run_id", "kind", "arrays", "bytes", "sha256"}
    assert (first["kind"], first["run_id"], first["arrays"], first["bytes"]) == ("train", "run-1", 1, 16)
    assert second["kind"] == "train, own row"
    text = gate.audit_log.read_text()
    assert not any(value in text for value in ("61.25", "0.731"))


def test_gate_marks_what_left_by_its_hash(gate: Gate) -> None:
    for value in (1.0, 1.0, 2.0):
        gate.release_sums({"sum": np.array([value, 0.0])}, n_patients=10)

    hashes = [line["sha256"] for line in _lines(gate)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_gate_releases_the_row_of_a_large_group(gate: Gate) -> None:
    assert json.loads(gate.release_row(ROW, n=20, events=8)) == ROW


@pytest.mark.parametrize(("n", "events"), [(0, 0), (9, 5), (30, 4), (30, 26), (10, 10)])
def test_gate_hides_the_row_of_a_small_group_and_a_true_zero_looks_the_same(gate: Gate, n: int, events: int) -> None:
    row = {**ROW, "n": n, "events": events}

    assert gate.release_row(row, n=n, events=events) == '{"suppressed": true}'


def test_audit_log_does_not_tell_which_small_group_was_hidden(gate: Gate) -> None:
    gate.release_row({"n": 0}, n=0, events=0)
    gate.release_row({"n": 9, "events": 4}, n=9, events=4)

    empty, small = ({key: value for key, value in line.items() if key != "time"} for line in _lines(gate))
    assert empty == small


UNIT = CheckFinding("unit-shift", "static", "age", 0.011, 1.5, "red")
MARKER = CheckFinding("short-cut", "hip", "row 1, column 1 of 16", 0.95, 0.85, "red")
REPORT = QualityReport(judged=40, by_outcome=True, findings=(UNIT, MARKER))
MODALITIES = ("static", "hip")


def test_gate_releases_a_quality_row_with_a_line_in_the_audit_log(gate: Gate) -> None:
    text = gate.release_report(REPORT, modalities=MODALITIES, n=20, events=8)

    assert [finding["check"] for finding in json.loads(text)["findings"]] == ["unit-shift", "short-cut"]
    (line,) = _lines(gate)
    assert (line["kind"], line["bytes"]) == ("train, own row", len(text))


@pytest.mark.parametrize("events", [4, 16, 20])
def test_gate_keeps_findings_by_outcome_in_where_one_outcome_is_rare(gate: Gate, events: int) -> None:
    row = json.loads(gate.release_report(REPORT, modalities=MODALITIES, n=20, events=events))

    assert [finding["check"] for finding in row["findings"]] == ["unit-shift"]
    assert row["by_outcome"] is False


def test_gate_hides_the_quality_row_of_few_patients(gate: Gate) -> None:
    text = gate.release_report(REPORT, modalities=MODALITIES, n=9, events=4)

    assert text == '{"suppressed": true}'


@pytest.mark.parametrize(
    "finding",
    [
        CheckFinding("unit-shift", "static", "age", 0.0113, 1.5, "red"),
        CheckFinding("unit-shift", "static", "age", float("nan"), 1.5, "red"),
        CheckFinding("patients", "static", "age", 0.01, 1.5, "red"),
        CheckFinding("unit-shift", "wards", "age", 0.01, 1.5, "red"),
        CheckFinding("unit-shift", "static", "P1\n", 0.01, 1.5, "red"),
    ],
    ids=["fine", "nan", "check", "modality", "text"],
)
def test_gate_lets_no_quality_row_out_that_is_not_coarse_and_agreed(gate: Gate, finding: CheckFinding) -> None:
    report = QualityReport(judged=40, by_outcome=True, findings=(finding,))

    with pytest.raises(ProtocolError, match="quality row: expected"):
        gate.release_report(report, modalities=MODALITIES, n=20, events=8)

    assert _lines(gate) == []
