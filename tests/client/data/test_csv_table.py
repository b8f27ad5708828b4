"""Causes that make a CSV unreadable: each is named once, and the rest of the file is still read where it can be."""

from pathlib import Path

import pytest

from client.data.columns import read_numbers, read_texts
from client.data.problems import ProblemLog
from client.data.tables import TableCells, read_table

GOOD = "id,age,sex\na,50,m\nb,60,f\n"


def _read(tmp_path: Path, content: str | bytes, *wanted: str) -> tuple[TableCells | None, list[tuple[int, str]], str]:
    (tmp_path / "t.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    log = ProblemLog()
    table = read_table(tmp_path / "t.csv", wanted=wanted or ("id", "age", "sex"), log=log)
    details = " ".join(problem.detail for problem in log.problems)
    return table, [(problem.row, problem.rule) for problem in log.problems], details


@pytest.mark.parametrize("first", ["sep=,", "SEP=,", '"sep=,"', "sep=,,,", "\n\nsep=,"])
def test_read_csv_reads_past_the_line_that_tells_excel_of_commas(tmp_path: Path, first: str) -> None:
    table, problems, _ = _read(tmp_path, f"{first}\r\n" + GOOD.replace("\n", "\r\n"))

    assert problems == []
    assert table is not None
    assert read_texts(table, "id").tolist() == ["a", "b"]
    assert table.lines.tolist() == [n + first.count("\n") for n in (3, 4)]


@pytest.mark.parametrize(
    ("above", "rows"),
    [
        ("# exported 2024\n", 2),
        ('# by "somebody\n# on Monday, at noon\n', 3),
        ("Report of the ward\n\n", 3),
        ("Report,,\n,,\n", 3),
        ("Patients of 2024, all wards, final version 3\n", 2),
    ],
)
def test_read_csv_names_what_stands_above_the_header_once(tmp_path: Path, above: str, rows: int) -> None:
    table, problems, detail = _read(tmp_path, above + GOOD)

    assert problems == [(1, "text-above-header")]
    assert f"the header is in row {rows}" in detail
    assert table is not None
    assert read_texts(table, "sex").tolist() == ["m", "f"]


def test_read_csv_reads_past_empty_lines_before_the_header(tmp_path: Path) -> None:
    table, problems, _ = _read(tmp_path, "\n\n" + GOOD)

    assert problems == []
    assert table is not None
    assert table.lines.tolist() == [4, 5]


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
@pytest.mark.parametrize("first", ["", "sep={}\n", "# note\n"])
def test_read_csv_names_another_delimiter_and_reads_on(tmp_path: Path, mark: str, name: str, first: str) -> None:
    content = first.format(mark) + GOOD.replace(",", mark).replace("50", "50,5")
    table, problems, detail = _read(tmp_path, content)

    assert {rule for _, rule in problems} - {"text-above-header"} == {"wrong-delimiter"}
    assert f"got {name}" in detail
    assert table is not None
    assert read_texts(table, "id").tolist() == ["a", "b"]
    read_numbers(table, "age")
    assert [problem.rule for problem in table.log.problems][-1] == "decimal-comma"


def test_read_csv_names_another_delimiter_of_a_header_with_one_name(tmp_path: Path) -> None:
    _, problems, detail = _read(tmp_path, "id\na;50;m\nb;60;f\n")

    assert (1, "wrong-delimiter") in problems
    assert "semicolons" in detail


@pytest.mark.parametrize("content", ["a,50,m\nb,60,f\n", "sep=,\na,50,m\n", "1,2,3\n4,5,6\n"])
def test_read_csv_names_a_missing_header_and_nothing_else(tmp_path: Path, content: str) -> None:
    table, problems, detail = _read(tmp_path, content)

    assert table is None
    assert [rule for _, rule in problems] == ["no-header"]
    assert "expected a header with id, age, sex" in detail


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"PK\x03\x04\x14\x00", "Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "Excel workbook of the old kind"),
        (b"PAR1\x15\x04", "Parquet"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\xef\xbb\xbf<html><table>", "HTML"),
        (b'{"id": 1}', "JSON"),
    ],
)
def test_read_csv_names_a_file_of_another_format(tmp_path: Path, content: bytes, named: str) -> None:
    table, problems, detail = _read(tmp_path, content)

    assert table is None
    assert problems == [(1, "not-csv")]
    assert named in detail


def test_read_csv_names_the_encoding_of_a_windows_export(tmp_path: Path) -> None:
    _, problems, detail = _read(tmp_path, "id,age,sex\nZo\u00eb,50,m\n".encode("cp1252"))

    assert problems == [(2, "not-utf-8")]
    assert "Latin-1 or Windows-1252 (there '\u00eb')" in detail


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_read_csv_names_utf_16(tmp_path: Path, encoding: str) -> None:
    _, problems, detail = _read(tmp_path, GOOD.encode(encoding))

    assert problems == [(1, "nul-byte")]
    assert "got UTF-16 text" in detail


@pytest.mark.parametrize("second", ["id,age,sex", "\ufeffid,age,sex", "sex,id,age", '"id","age","sex"'])
def test_read_csv_names_the_second_header_of_joined_files(tmp_path: Path, second: str) -> None:
    table, problems, _ = _read(tmp_path, f"\ufeff{GOOD}{second}\nc,70,m\n")

    assert problems == [(4, "repeated-header")]
    assert table is not None
    assert read_texts(table, "id").tolist() == ["a", "b", "c"]


def test_read_csv_takes_a_byte_order_mark_before_a_quoted_cell(tmp_path: Path) -> None:
    table, problems, _ = _read(tmp_path, GOOD + '\ufeff"c,1",70,m\n')

    assert problems == []
    assert table is not None
    assert read_texts(table, "id").tolist() == ["a", "b", "c,1"]


def test_read_csv_takes_a_row_of_commas_for_an_empty_line(tmp_path: Path) -> None:
    table, problems, _ = _read(tmp_path, GOOD + ",,\n , ,\n\x1a")

    assert problems == []
    assert table is not None
    assert len(table) == 2


def test_read_csv_names_a_width_that_all_rows_share_once(tmp_path: Path) -> None:
    table, problems, detail = _read(tmp_path, "id,age,sex\na,50,5,m\nb,60,5,f\nc,70,5,m\n")

    assert problems == [(2, "row-length")]
    assert "got 4 in every row" in detail
    assert table is not None
    assert not table.complete


def test_read_csv_finds_names_of_columns_that_differ_in_what_nobody_sees(tmp_path: Path) -> None:
    table, problems, _ = _read(tmp_path, "i\u200bd,\u00a0age,s\u00adex\na,50,m\n")

    assert problems == []
    assert table is not None


def test_read_csv_finds_duplicate_columns_that_only_look_different(tmp_path: Path) -> None:
    _, problems, _ = _read(tmp_path, "id,age,sex,age\u200b\na,50,m,51\n")

    assert problems == [(1, "duplicate-column")]


def test_read_table_names_the_letter_in_which_a_column_differs(tmp_path: Path) -> None:
    _, problems, detail = _read(tmp_path, "id,\u0430ge,sex\na,50,m\n")

    assert problems == [(1, "missing-column")]
    assert r"Rename column '\u0430ge'" in detail
