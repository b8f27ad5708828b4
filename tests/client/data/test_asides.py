"""Rows of a table that are no data: each is told by what it is, and by that alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest

from client.data import read_hospital
from client.data.asides import find_aside
from shared_model.errors import DataError, Problem

if TYPE_CHECKING:
    from tests.client.conftest import SmallHospital


def _problems(hospital: SmallHospital) -> tuple[Problem, ...]:
    with pytest.raises(DataError) as refused:
        read_hospital(hospital.folder, hospital.schema)
    return refused.value.problems


def _append(hospital: SmallHospital, file: str, row: str) -> None:
    path = hospital.folder / file
    hospital.write(file, path.read_text(encoding="utf-8") + row + "\n")


@pytest.mark.parametrize(
    ("row", "rule", "what"),
    [
        ("Total,,,,,,", "totals-row", "a row of totals"),
        ("TOTAL:,,,,,,", "totals-row", "a row of totals"),
        ("Summe,2,313,2,,,", "totals-row", "a row of totals"),
        ("Mean,0.5,78,,,,", "totals-row", "a row of totals"),
        ("Total patients: 4,,,,,,", "totals-row", "a row of totals"),
        ("n=200,,,,,,", "totals-row", "a count of rows"),
        ("N = 1,,,,,,", "totals-row", "a count of rows"),
        ("Total", "totals-row", "a row of totals"),
        ("(4 rows)", "totals-row", "a count of rows"),
        ("4 rows affected", "totals-row", "a count of rows"),
        ("# exported on Monday,,,,,,", "comment-row", "a comment"),
        ("# exported on Monday, at noon", "comment-row", "a comment"),
        ("// a note", "comment-row", "a comment"),
        ("Note: preliminary,,,,,,", "comment-row", "a comment"),
        ("End of file", "footer-row", "a footer"),
        ("-----,,,,,,", "footer-row", "a footer"),
        ("Generated 2024-03-05,,,,,,", "footer-row", "a footer"),
    ],
)
def test_a_row_that_is_no_data_is_told_by_its_cause_alone(
    hospital: SmallHospital, row: str, rule: str, what: str
) -> None:
    _append(hospital, "patients.csv", row)

    [problem] = _problems(hospital)
    assert (problem.file, problem.row, problem.rule) == ("patients.csv", 6, rule)
    assert f"({what})" in problem.detail


def test_a_comment_in_mid_file_blames_no_row_of_another_table(hospital: SmallHospital) -> None:
    hospital.edit("patients.csv", "P2,", "# moved here\nP2,")
    _append(hospital, "vitals.csv", "P9,0,80,")

    assert [(problem.file, problem.row, problem.rule) for problem in _problems(hospital)] == [
        ("patients.csv", 3, "comment-row"),
        ("vitals.csv", 7, "unknown-patient"),
    ]


@pytest.mark.parametrize("file", ["vitals.csv", "drugs.csv", "procedures.csv", "images.csv"])
def test_totals_are_found_in_every_table(hospital: SmallHospital, file: str) -> None:
    n_cells = (hospital.folder / file).read_text(encoding="utf-8").splitlines()[0].count(",")
    _append(hospital, file, "Total" + "," * n_cells)

    [problem] = _problems(hospital)
    assert (problem.file, problem.column, problem.rule) == (file, "patient_id", "totals-row")


def test_totals_are_found_in_parquet(hospital: SmallHospital) -> None:
    table = pd.read_csv(hospital.folder / "procedures.csv")
    table.loc[len(table)] = ["Total", None]
    table.to_parquet(hospital.folder / "procedures.parquet")
    (hospital.folder / "procedures.csv").unlink()

    assert [(problem.row, problem.rule) for problem in _problems(hospital)] == [(5, "totals-row")]


@pytest.mark.parametrize("row", ["Total,,,", "Summe,,1,60", "Report of 2024,,,"])
def test_a_row_without_an_id_is_told_by_what_another_column_says(hospital: SmallHospital, row: str) -> None:
    hospital.write("procedures.csv", f"item,patient_id,x,y\nnail,P1,,\n{row}\n")

    [problem] = _problems(hospital)
    assert (problem.row, problem.column) == (3, "item")
    assert problem.rule in ("totals-row", "footer-row")


def test_a_row_with_an_id_alone_may_be_a_note(hospital: SmallHospital) -> None:
    _append(hospital, "patients.csv", "reviewed by the ward,,,,,,")

    problems = _problems(hospital)
    assert {problem.row for problem in problems} == {6}
    assert any("a row that holds an id alone" in problem.detail for problem in problems)


def test_a_short_line_of_another_kind_is_quoted(hospital: SmallHospital) -> None:
    _append(hospital, "patients.csv", "reviewed by the ward")

    [problem] = _problems(hospital)
    assert problem.rule == "row-length"
    assert "got 1 ('reviewed by the ward'). Remove the row if it is a note" in problem.detail


@pytest.mark.parametrize("text", ["#7", "SD 12", "Max", "All-3", "End1", "--7", "12", "P1", "sumatra"])
def test_an_id_beside_which_something_stands_is_a_patient(text: str) -> None:
    assert find_aside(text, alone=False) is None
