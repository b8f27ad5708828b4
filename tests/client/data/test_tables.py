from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client.data.columns import read_flags, read_levels, read_numbers, read_texts
from client.data.problems import ProblemLog
from client.data.tables import TableCells, find_table, read_table

NAN = float("nan")


def _read(
    tmp_path: Path, content: str | bytes, wanted: tuple[str, ...] = ("a", "b")
) -> tuple[TableCells | None, ProblemLog]:
    log = ProblemLog()
    (tmp_path / "table.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(tmp_path / "table.csv", wanted=wanted, log=log), log


def _good(tmp_path: Path, content: str | bytes, wanted: tuple[str, ...] = ("a", "b")) -> TableCells:
    table, log = _read(tmp_path, content, wanted)
    assert log.problems == ()
    assert table is not None
    return table


def _found(log: ProblemLog) -> list[tuple[int, str, str]]:
    return [(problem.row, problem.column, problem.rule) for problem in log.problems]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_read_table_takes_every_line_end(tmp_path: Path, newline: str) -> None:
    table = _good(tmp_path, newline.join(["a,b", "1,x", "2,y", ""]))

    assert read_texts(table, "b").tolist() == ["x", "y"]
    assert table.lines.tolist() == [2, 3]


def test_read_table_counts_lines_as_an_editor_does(tmp_path: Path) -> None:
    table = _good(tmp_path, 'a,b\n\n1,"two\nlines"\n2,y\n\n3,"a ""quoted"" word"\n')

    assert table.lines.tolist() == [3, 5, 7]
    assert read_texts(table, "b").tolist() == ["two\nlines", "y", 'a "quoted" word']


def test_read_table_takes_a_byte_order_mark_and_spaces_around_cells(tmp_path: Path) -> None:
    table = _good(tmp_path, b"\xef\xbb\xbf a , b\n 1 , x \n")

    assert read_numbers(table, "a").tolist() == [1]
    assert read_texts(table, "b").tolist() == ["x"]


def test_read_table_names_columns_that_nobody_asked_for(tmp_path: Path) -> None:
    assert _good(tmp_path, ",a,ward,b\n0,1,n,2\n").ignored == ("ward",)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_read_table_names_a_wrong_delimiter_once(tmp_path: Path, delimiter: str) -> None:
    table, log = _read(tmp_path, delimiter.join("ab") + "\n" + f"1{delimiter}2\n" * 1000)

    assert table is not None
    assert _found(log) == [(1, "", "wrong-delimiter")]
    assert read_texts(table, "b").tolist() == ["2"] * 1000  # so that other faults of the file are found in one go


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", (0, "", "empty-file")),
        (b" \n\n", (0, "", "empty-file")),
        (b"a,b\n1,\xe9\n", (2, "", "not-utf-8")),
        (b"a,b\r\n1,2\r\n3,\xe9\r\n", (3, "", "not-utf-8")),
        (b"a,b\n1,2\n3,\x00\n", (3, "", "nul-byte")),
        ("a,b\n1,2\n".encode("utf-16"), (1, "", "nul-byte")),
        (b'a,b\n1,2\n3,"x\n5,6\n', (3, "", "malformed-csv")),
        (b'a,b\n1,"x"y\n', (2, "", "malformed-csv")),
    ],
)
def test_read_table_refuses_a_file_without_form(tmp_path: Path, content: bytes, found: tuple[int, str, str]) -> None:
    table, log = _read(tmp_path, content)

    assert table is None
    assert _found(log) == [found]


def test_read_table_drops_ragged_rows_and_names_each(tmp_path: Path) -> None:
    table, log = _read(tmp_path, "a,b\n1,2,3\n4,5\n6\n")

    assert table is not None
    assert not table.complete
    assert table.lines.tolist() == [3]
    assert _found(log) == [(2, "", "row-length"), (4, "", "row-length")]
    assert "expected 2 cells as in the header, got 3" in log.problems[0].detail


def test_read_table_names_duplicate_and_missing_columns(tmp_path: Path) -> None:
    table, log = _read(tmp_path, "a,a,Beta\n1,2,3\n", wanted=("a", "beta", "gamma"))

    assert table is not None
    assert "a" not in table
    assert _found(log) == [(1, "beta", "missing-column"), (1, "gamma", "missing-column"), (1, "a", "duplicate-column")]
    assert "Rename column 'Beta'" in log.problems[0].detail


def test_read_table_names_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    table, log = _read(tmp_path, "a,b\n1,2\n")

    assert table is None
    assert _found(log) == [(0, "", "unreadable-file")]


def test_find_table_refuses_two_files_of_one_name(tmp_path: Path) -> None:
    log = ProblemLog()
    for suffix in ("csv", "parquet"):
        (tmp_path / f"table.{suffix}").touch()

    assert find_table(tmp_path, "table", log=log) is None
    assert [problem.rule for problem in log.problems] == ["two-files"]


def _parquet(tmp_path: Path, **columns: pa.Array) -> tuple[TableCells, ProblemLog]:
    log = ProblemLog()
    pq.write_table(pa.table(columns), tmp_path / "table.parquet")
    table = read_table(tmp_path / "table.parquet", wanted=tuple(columns), log=log)
    assert table is not None
    return table, log


def test_read_table_reads_each_parquet_type(tmp_path: Path) -> None:
    table, log = _parquet(
        tmp_path,
        id=pa.array([1, None], pa.int64()),
        half=pa.array([2.0, NAN], pa.float32()),
        flag=pa.array([True, None]),
        name=pa.array(["x", None]).dictionary_encode(),
        price=pa.array([1, None], pa.decimal128(5, 2)),
    )

    assert read_texts(table, "id").tolist() == ["1", ""]
    assert read_texts(table, "half").tolist() == ["2", ""]
    np.testing.assert_array_equal(read_numbers(table, "half"), [2, NAN])
    np.testing.assert_array_equal(read_flags(table, "flag"), [1, NAN])
    assert read_texts(table, "name").tolist() == ["x", ""]
    np.testing.assert_array_equal(read_numbers(table, "price"), [1, NAN])
    assert table.lines.tolist() == [2, 3]
    assert log.problems == ()


def test_read_numbers_refuses_other_parquet_types(tmp_path: Path) -> None:
    table, log = _parquet(
        tmp_path, when=pa.array([0], pa.timestamp("s")), parts=pa.array([[1, 2]]), endless=pa.array([float("inf")])
    )

    for column in ("when", "parts", "endless"):
        assert np.isnan(read_numbers(table, column)).all()
    assert _found(log) == [(1, "when", "wrong-type"), (1, "parts", "wrong-type"), (2, "endless", "not-a-number")]
    assert "got a column of type timestamp[" in log.problems[0].detail


def test_read_table_refuses_a_damaged_parquet_file(tmp_path: Path) -> None:
    log = ProblemLog()
    pd.DataFrame({"a": range(1000)}).to_parquet(tmp_path / "table.parquet")
    content = (tmp_path / "table.parquet").read_bytes()
    (tmp_path / "table.parquet").write_bytes(content[:-20])

    assert read_table(tmp_path / "table.parquet", wanted=("a",), log=log) is None
    assert _found(log) == [(0, "", "unreadable-file")]


def test_read_numbers_takes_plain_numbers_only(tmp_path: Path) -> None:
    cells = [
        "1",
        "-2.5",
        "+3.",
        ".5",
        "1e3",
        "",
        "NA",
        "nan",
        "inf",
        "-Infinity",
        "1,5",
        "0x10",
        "1_0",
        "1e999",
        "\u0661",
    ]
    table, log = _read(tmp_path, "a,b\n" + "".join(f'"{cell}",x\n' for cell in cells))
    assert table is not None

    numbers = read_numbers(table, "a")

    np.testing.assert_array_equal(numbers, [1, -2.5, 3, 0.5, 1000, *[NAN] * 10])
    assert {problem.row for problem in log.problems} == set(range(8, 17))
    assert "got 'NA' (a mark for a missing value)" in log.problems[0].detail


def test_read_numbers_refuses_values_outside_the_limits(tmp_path: Path) -> None:
    table, log = _read(tmp_path, "a,b\n0,\n10,\n10.01,\n-1,\n")
    assert table is not None

    np.testing.assert_array_equal(read_numbers(table, "a", limits=(0.0, 10.0)), [0, 10, NAN, NAN])
    assert _found(log) == [(4, "a", "out-of-range"), (5, "a", "out-of-range")]
    assert log.problems[0].detail.startswith("expected 0 to 10, got '10.01'.")


def test_read_flags_takes_zero_and_one_in_any_spelling(tmp_path: Path) -> None:
    table, log = _read(tmp_path, "a,b\n0,\n1.0,\n,x\n2,\nyes,\nTRUE,\n")
    assert table is not None

    np.testing.assert_array_equal(read_flags(table, "a"), [0, 1, NAN, NAN, NAN, 1])
    assert _found(log) == [(5, "a", "not-0-1"), (6, "a", "not-0-1")]


def test_read_levels_compares_whole_floats_as_integers(tmp_path: Path) -> None:
    table, log = _read(tmp_path, "a,b\n1,\n2.0,\n,x\n1.5,\nMICU,\n")
    assert table is not None

    assert read_levels(table, "a", levels=("MICU", "1", "2")).tolist() == [1, 2, -1, -1, 0]
    assert _found(log) == [(5, "a", "unknown-level")]


def test_problem_log_lists_a_hundred_rows_and_counts_the_rest(tmp_path: Path) -> None:
    table, log = _read(tmp_path, "a,b\n" + "x,\n" * 250)
    assert table is not None
    read_numbers(table, "a")

    assert len(log.problems) == 101
    assert len(log) == 250
    last = max(log.problems)
    assert (last.row, last.column, last.rule) == (102, "a", "not-a-number")
    assert last.detail == "and 150 more from this row on."


def test_problem_log_escapes_control_characters_and_cuts_long_cells(tmp_path: Path) -> None:
    table, log = _read(tmp_path, "a,b\n\x1b[31mred,\n" + "x" * 500 + ",\n")
    assert table is not None
    read_numbers(table, "a")

    assert "\x1b" not in log.problems[0].detail
    assert r"'\x1b[31mred'" in log.problems[0].detail
    assert len(log.problems[1].detail) < 200


@pytest.mark.parametrize(
    "letter", ["\ufe0f", "\u3164", "\u2800", "\u115f", "\u1160", "\uffa0", "\u00a0", "\u200b", "\U000e0101"]
)
def test_problems_show_the_code_points_of_what_nobody_sees(tmp_path: Path, letter: str) -> None:
    table, log = _read(tmp_path, f"a,b\n8{letter}x,q{letter}r\n")
    assert table is not None
    read_numbers(table, "a")
    read_levels(table, "b", levels=("1",))

    assert len(log.problems) == 2
    assert all(ascii(letter)[1:-1] in problem.detail and letter not in problem.detail for problem in log.problems)
