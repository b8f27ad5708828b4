from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest

from client.data import read_hospital
from shared_model.errors import DataError

if TYPE_CHECKING:
    from tests.client.conftest import SmallHospital


def _drugs(hospital: SmallHospital, aggregate: Literal["any", "count", "dose"]) -> list[list[float]]:
    events = {
        **hospital.schema.events,
        "drugs": hospital.schema.events["drugs"].model_copy(update={"aggregate": aggregate}),
    }
    schema = hospital.schema.model_copy(update={"events": events})
    amounts = read_hospital(hospital.folder, schema).arrays.raw["drugs"]
    assert amounts.dtype == np.float32
    return amounts.tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(("aggregate", "opioid"), [("any", 1), ("count", 2), ("dose", 7.5)])
def test_read_events_aggregates_as_the_schema_says(
    hospital: SmallHospital, aggregate: Literal["any", "count", "dose"], opioid: float
) -> None:
    assert _drugs(hospital, aggregate)[0] == [opioid, 0]


def test_read_events_needs_no_dose_when_it_only_counts(hospital: SmallHospital) -> None:
    hospital.write("drugs.csv", "patient_id,item\nP1,opioid\nP1,opioid\n")

    assert _drugs(hospital, "count")[0] == [2, 0]


def test_read_events_takes_a_dose_of_zero(hospital: SmallHospital) -> None:
    hospital.write("drugs.csv", "patient_id,item,dose\nP1,opioid,0\n")

    assert _drugs(hospital, "dose")[0] == [0, 0]


def test_read_events_has_recorded_patients_without_rows(hospital: SmallHospital) -> None:
    present = read_hospital(hospital.folder, hospital.schema).arrays.present

    assert present["drugs"].tolist() == [True, True, False, True]  # as recorded, though P4 got nothing
    assert present["procedures"].tolist() == [True, False, True, False]  # as rows say


@pytest.mark.parametrize(
    ("row", "column", "rule"),
    [
        ("P3,opioid,1", "patient_id", "not-recorded"),
        ("P1,,1", "item", "unknown-item"),
        ("P1,Opioid,1", "item", "unknown-item"),
        ("P7,opioid,1", "patient_id", "unknown-patient"),
        ("P1,opioid,nan", "dose", "missing-marker"),
        ("P1,opioid,-0.1", "dose", "negative-dose"),
    ],
)
def test_read_events_names_the_row_at_fault(hospital: SmallHospital, row: str, column: str, rule: str) -> None:
    hospital.write("drugs.csv", f"patient_id,item,dose\nP1,insulin,1\n{row}\n")

    with pytest.raises(DataError) as refused:
        read_hospital(hospital.folder, hospital.schema)

    [problem] = refused.value.problems
    assert (problem.file, problem.row, problem.column, problem.rule) == ("drugs.csv", 3, column, rule)
