import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_model.config import parse_settings
from shared_model.errors import ProtocolError
from shared_model.quality.checks import (
    LIMITS,
    CheckFinding,
    QualityReport,
    accepted_names,
    critical_p,
    critical_z,
    parse_report,
    sort_findings,
    two_digits,
    worst,
)
from shared_model.schema import Schema

FINDING = CheckFinding("unit-shift", "static", "age", 0.011, 1.5, "red")
REPORT = QualityReport(judged=40, by_outcome=True, findings=(FINDING,))


def _text(**changes: Any) -> str:
    row = REPORT.to_row()
    row["findings"][0].update(changes)
    return json.dumps(row)


@pytest.mark.parametrize(
    ("effect", "grade"), [(0.0, "green"), (0.249, "green"), (0.25, "amber"), (0.499, "amber"), (0.5, "red")]
)
def test_grade_is_that_of_the_highest_limit_reached(effect: float, grade: str) -> None:
    assert LIMITS["flat-lines"].grade(effect) == grade


def test_check_without_red_limit_is_amber_however_large_its_effect() -> None:
    assert LIMITS["missing-modality"].grade(float("inf")) == "amber"
    assert LIMITS["missing-modality"].reached("amber") == 10


def test_chance_is_ruled_out_over_all_tests() -> None:
    assert critical_p(1) == 0.001
    assert critical_p(100) == pytest.approx(0.00001)
    assert critical_z(1) == pytest.approx(3.2905, abs=1e-4)  # the 99.95th percentile of a normal distribution
    assert critical_z(100) == pytest.approx(4.4172, abs=1e-4)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300))
def test_two_digits_stay_as_they_are_when_rounded_again(value: float) -> None:
    once = two_digits(value)
    assert two_digits(once) == once
    assert abs(once - value) <= 0.05 * abs(value) + 1e-320


def test_report_comes_back_from_its_row(small_study: Schema) -> None:
    assert parse_report(json.dumps(REPORT.to_row()), small_study) == REPORT
    assert parse_report('{"suppressed": true}', small_study) is None


@pytest.mark.parametrize(
    "change",
    [
        {"check": "patients"},
        {"modality": "genome"},
        {"value": 0.01134},
        {"value": "P1"},
        {"limit": None},
        {"grade": "green"},
        {"item": "x" * 201},
        {"item": "line\nbreak"},
        {"patient": "P1"},
    ],
    ids=str,
)
def test_row_is_refused_when_it_says_anything_else(small_study: Schema, change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="quality row: expected"):
        parse_report(_text(**change), small_study)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", _text().replace("0.011", "NaN"), _text(value=1e999)])
def test_malformed_row_is_refused(small_study: Schema, text: str) -> None:
    with pytest.raises(ProtocolError):
        parse_report(text, small_study)


def test_findings_stand_with_red_ones_first() -> None:
    amber = CheckFinding("level-shift", "static", "age", 1.2, 1.0, "amber")

    assert sort_findings([amber, FINDING]) == (FINDING, amber)
    assert worst(["green", "amber"]) == "amber"
    assert worst([]) == "green"


def test_finding_reads_as_a_line() -> None:
    assert str(FINDING) == "unit-shift of static, age 0.011 (limit 1.5)"
    assert str(CheckFinding("prevalence", "", "", None, 2.0, "amber")) == "prevalence (limit 2)"


def test_accepted_hospitals_are_named_with_commas() -> None:
    settings = parse_settings({"accept-red": "hospital_3, hospital_5,"})

    assert accepted_names(settings) == {"hospital_3", "hospital_5"}
