from io import StringIO

from rich.console import Console

from client.data.problems import ProblemLog
from client.data.screen import print_problems
from shared_model.errors import DataError, Problem


def _lines(problems: list[Problem]) -> list[str]:
    screen = StringIO()
    print_problems(Console(file=screen, width=80), "small", problems)
    return screen.getvalue().splitlines()


def _unknown(row: int, *, file: str = "vitals.csv", column: str = "patient_id") -> Problem:
    return Problem(file=file, row=row, column=column, rule="unknown-patient", detail=f"got 'P{row}'.")


def test_ten_problems_of_one_rule_are_all_shown() -> None:
    lines = _lines([_unknown(row) for row in range(2, 12)])

    assert lines[0] == "small: 10 problems"
    assert lines[1:] == [f"  vitals.csv, row {row}, patient_id: unknown-patient: got 'P{row}'." for row in range(2, 12)]


def test_more_problems_of_one_rule_are_one_line_and_still_counted() -> None:
    lines = _lines([_unknown(row) for row in range(2, 13)] + [_unknown(3, file="drugs.csv")])

    assert lines == [
        "small: 12 problems",
        "  vitals.csv, rows 2, 3, 4, 5, 6, ... (11 in all), patient_id: unknown-patient: got 'P2'.",
        "  drugs.csv, row 3, patient_id: unknown-patient: got 'P3'.",
    ]


def test_columns_of_one_rule_keep_a_line_each() -> None:
    missing = [Problem("patients.csv", 1, f"c{i:02}", "missing-column", f"expected c{i:02}.") for i in range(12)]

    assert len(_lines(missing)) == 1 + 12


def test_the_text_of_an_error_is_as_short_as_the_screen() -> None:
    problems = [_unknown(row) for row in range(2, 200)]

    assert str(DataError(problems)).splitlines() == [line.strip() for line in _lines(problems)[1:]]


def test_rows_that_were_not_listed_count_too() -> None:
    log = ProblemLog(limit=20)
    log.add_rows("vitals.csv", rule="out", column="hr", faults=((row, "bad.") for row in range(2, 1502)), total=1500)

    assert _lines(list(log.problems)) == [
        "small: 1,500 problems",
        "  vitals.csv, rows 2, 3, 4, 5, 6, ... (1,500 in all), hr: out: bad.",
    ]
