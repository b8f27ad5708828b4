"""Columns and files under another name than expected: a message names them and says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client.commands.check import find_hospitals
from client.data import open_hospital, read_hospital
from client.data.likely_names import advise_column
from shared_model.errors import DataError, Problem

if TYPE_CHECKING:
    from tests.client.conftest import SmallHospital


def _problems(hospital: SmallHospital) -> tuple[Problem, ...]:
    with pytest.raises(DataError) as refused:
        read_hospital(hospital.folder, hospital.schema)
    return refused.value.problems


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("age", "age (years)"),
        ("age", "Age [years]"),
        ("age", "AGE"),
        ("age", "\u0430ge"),
        ("patient_id", "Patient ID"),
        ("patient_id", "PatientID"),
        ("patient_id", "patient-id"),
        ("patient_id", "PATIENT_ID "),
        ("hr", "HR (/min)"),
    ],
)
def test_advise_column_renames_one_that_differs_in_form_or_unit(name: str, written: str) -> None:
    advice = advise_column(name, ["ward", written, "other"], wanted=[name])

    assert advice.startswith("Rename column ")
    assert advice.endswith(f" to {name}")
    assert written.strip()[1:] in advice


@pytest.mark.parametrize("written", ["age_years", "age/years", "patient age", "Age at admission"])
def test_advise_column_offers_one_that_holds_the_name(written: str) -> None:
    assert advise_column("age", ["ward", written], wanted=["age"]).startswith(
        f"Rename column '{written}' to age if it holds the same, else add it"
    )


@pytest.mark.parametrize("header", [[], ["ward"], ["stage"], ["age_group"]])
def test_advise_column_adds_one_where_nothing_else_may_be_meant(header: list[str]) -> None:
    assert (
        advise_column("age", header, wanted=["age", "age_group"]) == "Add it, with empty cells where nothing is known"
    )


@pytest.mark.parametrize(
    ("file", "remedy"),
    [
        ("PATIENTS.CSV", "Rename it to patients.csv"),
        ("Patients.csv", "Rename it to patients.csv"),
        ("patients.csv.csv", "Rename it to patients.csv"),
        ("Patients.Parquet", "Rename it to patients.parquet"),
        ("patients.csv.gz", "Unpack it to patients.csv or patients.parquet"),
        ("patients.xlsx", "Save it as patients.csv: CSV UTF-8 with commas"),
        ("patients.tsv", "Save it as patients.csv: CSV UTF-8 with commas"),
        ("patients.txt", "Save it as patients.csv: CSV UTF-8 with commas"),
        ("patients", "Save it as patients.csv: CSV UTF-8 with commas"),
        ("patient.csv", "Rename it to patients.csv"),
        ("patients (1).csv", "Rename it to patients.csv"),
    ],
)
def test_patients_under_another_name_are_named_with_what_to_do(hospital: SmallHospital, file: str, remedy: str) -> None:
    (hospital.folder / "patients.csv").rename(hospital.folder / file)

    [problem] = _problems(hospital)
    assert problem.rule in ("misnamed-table", "no-patients")
    assert problem.detail == f"expected patients.csv or patients.parquet, got '{file}'. {remedy}."


@pytest.mark.parametrize("file", ["Vitals.csv", "vitals.CSV", "vitals.csv.gz", "VITALS.xlsx"])
def test_a_modality_under_another_name_is_not_taken_for_absent(
    hospital: SmallHospital, tmp_path: Path, file: str
) -> None:
    vitals = (hospital.folder / "vitals.csv").rename(tmp_path / "away.csv")
    open_hospital(hospital.folder, hospital.schema, cache_dir=tmp_path / "cache")
    vitals.rename(hospital.folder / file)

    with pytest.raises(DataError) as refused:  # although what was read without the file is kept
        open_hospital(hospital.folder, hospital.schema, cache_dir=tmp_path / "cache")
    assert [problem.rule for problem in refused.value.problems] == ["misnamed-table"]


def test_a_second_form_of_a_table_that_is_read_is_noted(hospital: SmallHospital) -> None:
    for name in ("patients.xlsx", "Vitals.csv", "README.md", "vitals.csv.bak"):
        hospital.write(name, "")

    assert read_hospital(hospital.folder, hospital.schema).notes.ignored_tables == ("Vitals.csv", "patients.xlsx")


def test_a_cohort_of_one_hospital_whose_patients_are_misnamed_is_still_a_cohort(hospital: SmallHospital) -> None:
    (hospital.folder / "patients.csv").rename(hospital.folder / "PATIENTS.CSV")
    cohort = hospital.folder.parent

    assert hospital.folder in find_hospitals(cohort)
