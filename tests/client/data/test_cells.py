"""Types of Parquet columns: each is read as what it means, or refused by its name."""

import datetime as dt
import uuid
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.data.cells import arrow_cells
from client.data.columns import read_flags, read_levels, read_numbers, read_texts, read_times
from client.data.ids import read_ids, refuse_ids
from client.data.problems import ProblemLog
from client.data.series import grid_cells
from client.data.tables import TableCells, read_table

NAN = float("nan")


def _table(tmp_path: Path, values: pa.Array) -> TableCells:
    pq.write_table(pa.table({"x": values}), tmp_path / "table.parquet")
    table = read_table(tmp_path / "table.parquet", wanted=["x"], log=ProblemLog())
    assert table is not None
    return table


def _rules(table: TableCells) -> list[tuple[int, str]]:
    return [(problem.row, problem.rule) for problem in table.log.problems]


def _ids(table: TableCells) -> list[str]:
    refuse_ids(table, "x")
    return list(read_ids(table, "x"))


@pytest.mark.parametrize(
    ("values", "ids"),
    [
        (pa.array([2**53 + 1, None], pa.int64()), ["9007199254740993", ""]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([Decimal("123456789012345678.00")], pa.decimal128(20, 2)), ["123456789012345678"]),
        (pa.array([1.0, 2**24 - 1], pa.float32()), ["1", "16777215"]),
        (pa.array([-0.0, 2.0**53 - 1, NAN, None], pa.float64()), ["0", "9007199254740991", "", ""]),
        (pa.array(np.array([7], np.float16)), ["7"]),
        (pa.array(["007", " 7\u200b"], pa.large_string()), ["007", "7"]),
        (pa.array(["a", None, "b"]).dictionary_encode(), ["a", "", "b"]),
        (pa.array([5, 7], pa.int16()).dictionary_encode(), ["5", "7"]),
        (pa.array(["x"], pa.string_view()), ["x"]),
        (pa.array([b"caf\xc3\xa9"], pa.binary()), ["caf\u00e9"]),
        (pa.array([b"ab\0"], pa.binary(3)), ["ab"]),
        (pa.array([None, None]), ["", ""]),
    ],
)
def test_read_ids_is_exact_whatever_the_type(tmp_path: Path, values: pa.Array, ids: list[str]) -> None:
    table = _table(tmp_path, values)

    assert _ids(table) == ids
    assert {rule for _, rule in _rules(table)} <= {"empty-id"}


def test_read_ids_takes_the_text_form_of_a_uuid(tmp_path: Path) -> None:
    one = uuid.UUID(int=7)
    values = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([one.bytes], pa.binary(16)))

    assert _ids(_table(tmp_path, values)) == [str(one)]


@pytest.mark.parametrize(
    ("values", "first"),
    [
        (pa.array([20230000.0, 20230001.0], pa.float32()), 2),
        (pa.array([1.0, 2.0**24], pa.float32()), 3),
        (pa.array([1.0, 2.0**53], pa.float64()), 3),
        (pa.array([1.5], pa.float64()), 2),
        (pa.array([1.0, float("inf")], pa.float64()), 3),
        (pa.array(np.array([2048], np.float16)), 2),
    ],
)
def test_refuse_ids_names_a_float_type_once_that_may_have_lost_digits(
    tmp_path: Path, values: pa.Array, first: int
) -> None:
    table = _table(tmp_path, values)

    assert "" in _ids(table)
    assert _rules(table) == [(first, "inexact-id")]
    assert str(values.type.bit_width) in table.log.problems[0].detail


@pytest.mark.parametrize(
    "values",
    [pa.array([Decimal("1.50"), Decimal("2.00"), Decimal("3.25")], pa.decimal128(5, 2)), pa.array([1.5, 2.0, 3.25])],
)
def test_refuse_ids_names_fractions_of_any_type_once(tmp_path: Path, values: pa.Array) -> None:
    table = _table(tmp_path, values)

    assert _ids(table) == ["", "2", ""]
    assert _rules(table) == [(2, "inexact-id")]
    assert "and 1 more such ids" in table.log.problems[0].detail


@pytest.mark.parametrize(
    "values",
    [
        pa.array([True]),
        pa.array([dt.date(2024, 1, 2)]),
        pa.array([3], pa.duration("ms")),
        pa.array([[1]]),
        pa.array([{"a": 1}]),
        pa.array([b"\xff"], pa.binary()),
    ],
)
def test_refuse_ids_names_a_type_that_is_no_id(tmp_path: Path, values: pa.Array) -> None:
    table = _table(tmp_path, values)

    assert _ids(table) == [""]
    assert _rules(table) == [(1, "wrong-type")]
    assert f"of type {str(values.type)[:4]}" in table.log.problems[0].detail


@pytest.mark.parametrize(
    "values",
    [
        pa.array([0.1, 1.0, 2.5], pa.float32()),
        pa.array([0.1, 1.0, 2.5], pa.float64()),
        pa.array([Decimal("0.10"), Decimal("1.00"), Decimal("2.50")], pa.decimal128(5, 2)),
        pa.array(["0.1", "1.0", "2.5"]),
    ],
)
def test_read_levels_compares_numbers_of_any_type_by_value(tmp_path: Path, values: pa.Array) -> None:
    table = _table(tmp_path, values)

    assert read_levels(table, "x", levels=("2.5", "1", "0.1")).tolist() == [2, 1, 0]
    assert _rules(table) == []


def test_read_levels_refuses_a_float_that_may_be_two_levels(tmp_path: Path) -> None:
    table = _table(tmp_path, pa.array([1.1]))

    assert read_levels(table, "x", levels=("1.1", "1.10")).tolist() == [-1]
    assert _rules(table) == [(2, "unknown-level")]


@pytest.mark.parametrize(
    ("levels", "codes"),
    [(("true", "false"), [0, 1, -1]), (("No", "FALSE", "True"), [2, 1, -1]), (("0", "1"), [1, 0, -1])],
)
@pytest.mark.parametrize("values", [pa.array([True, False, None]), pa.array(["True", "FALSE", ""])])
def test_read_levels_takes_true_and_false(
    tmp_path: Path, levels: tuple[str, ...], codes: list[int], values: pa.Array
) -> None:
    assert read_levels(_table(tmp_path, values), "x", levels=levels).tolist() == codes


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_read_times_converts_durations_of_every_unit(tmp_path: Path, unit: str) -> None:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    values = pa.array(
        [0, 60 * per_second, 90 * per_second, None, 3600 * 24 * 365 * 100 * per_second], pa.duration(unit)
    )
    table = _table(tmp_path, values)

    np.testing.assert_array_equal(read_times(table, "x", unit="min")[0], [0, 1, 1.5, NAN, 52_560_000])
    np.testing.assert_array_equal(read_times(table, "x", unit="hours")[0][:2], [0, 1 / 60])
    np.testing.assert_array_equal(read_times(table, "x", unit="ms")[0][:2], [0, 60_000])
    assert _rules(table) == []


@pytest.mark.parametrize("unit", ["months", "visit", ""])
def test_read_times_refuses_durations_where_the_unit_has_no_fixed_length(tmp_path: Path, unit: str) -> None:
    table = _table(tmp_path, pa.array([60], pa.duration("s")))

    assert np.isnan(read_times(table, "x", unit=unit)[0]).all()
    assert _rules(table) == [(1, "wrong-type")]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([0], pa.timestamp("ns", tz="UTC")),
        pa.array([0], pa.date64()),
        pa.array([0], pa.time32("s")),
        pa.array([True]),
        pa.array([[1.0]]),
    ],
)
def test_read_times_refuses_a_type_without_a_time_zero(tmp_path: Path, values: pa.Array) -> None:
    table = _table(tmp_path, values)

    assert np.isnan(read_times(table, "x", unit="min")[0]).all()
    assert _rules(table) == [(1, "wrong-type")]


@pytest.mark.parametrize(("limits", "rules"), [((0.0, 1.0), []), ((0.0, 120.0), [(1, "wrong-type")])])
def test_read_numbers_takes_true_and_false_between_0_and_1_only(
    tmp_path: Path, limits: tuple[float, float], rules: list[tuple[int, str]]
) -> None:
    table = _table(tmp_path, pa.array([True, False]))
    read_numbers(table, "x", limits=limits)

    assert _rules(table) == rules


def test_read_numbers_takes_a_limit_that_a_float32_has_rounded_up(tmp_path: Path) -> None:
    table = _table(tmp_path, pa.array([0.1], pa.float32()))  # 0.100000001490116

    assert read_numbers(table, "x", limits=(0.0, 0.1)).tolist() == [0.1]
    assert _rules(table) == []


@given(st.lists(st.floats(width=32, allow_infinity=False, allow_nan=False), min_size=1, max_size=20))
def test_numbers_of_a_float32_are_those_of_its_shortest_text(values: list[float]) -> None:
    cells = arrow_cells(pa.chunked_array([pa.array(values, pa.float32())]))

    expected = [float(str(np.float32(value))) for value in values]
    sure = [not 0 < abs(value) <= 1e-7 and abs(value) < 1e15 for value in values]
    np.testing.assert_array_equal(cells.numbers[sure], np.array(expected)[sure])
    np.testing.assert_allclose(cells.numbers, values, rtol=1e-7)


def test_read_texts_has_none_of_a_type_without_text(tmp_path: Path) -> None:
    assert read_texts(_table(tmp_path, pa.array([0], pa.timestamp("s"))), "x").tolist() == [""]


def test_read_flags_takes_any_type_that_holds_zero_and_one(tmp_path: Path) -> None:
    for values in (pa.array([True, False]), pa.array([1, 0], pa.uint8()), pa.array([1.0, 0.0], pa.float16())):
        assert read_flags(_table(tmp_path, values), "x").tolist() == [1, 0]


@pytest.mark.parametrize("step", [0.1, 1 / 3, 0.7, 5.0])
def test_grid_takes_reckoned_float32_times_for_the_edges_that_are_meant(tmp_path: Path, step: float) -> None:
    reckoned = np.arange(1000, dtype=np.float32) * np.float32(step)
    times, spacing = read_times(_table(tmp_path, pa.array(reckoned)), "x", unit="min")

    cells = grid_cells(times, start=0, step=step, slack=16 * spacing)

    assert cells.tolist() == list(range(1000))


def test_grid_takes_the_float32_just_below_an_edge_for_the_edge(tmp_path: Path) -> None:
    below = np.nextafter(np.float32(5), np.float32(0))
    times, spacing = read_times(_table(tmp_path, pa.array([below, np.float32(4.999)])), "x", unit="min")

    assert grid_cells(times, start=0, step=5, slack=16 * spacing).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (pa.array([2**53 + 1, 2**53, -(2**53) - 1, None], pa.int64()), [NAN, 2**53, NAN, NAN]),
        (pa.array([2**64 - 1, 2**63], pa.uint64()), [NAN, 2**63]),
        (pa.array([2**63 - 1, 2**60], pa.int64()), [NAN, 2**60]),
        (pa.array([Decimal(10**17 + 1), Decimal(10**17)], pa.decimal128(20, 0)), [NAN, 1e17]),
        (pa.array([2.0**53, 2.0**53 + 2], pa.float64()), [2**53, 2**53 + 2]),
        (pa.array(["9007199254740993", "9007199254740993.0", "+9007199254740992"]), [NAN, NAN, 2**53]),
        (pa.array(["90071992547409930e-1", "1e23", "-6.02214076E+23"]), [NAN, 1e23, -6.02214076e23]),
    ],
)
def test_read_numbers_refuses_whole_numbers_that_lose_digits(
    tmp_path: Path, values: pa.Array, numbers: list[float]
) -> None:
    table = _table(tmp_path, values)

    np.testing.assert_array_equal(read_numbers(table, "x"), numbers)
    refused = np.isnan(numbers) & values.is_valid().to_numpy(zero_copy_only=False)
    assert _rules(table) == [(int(row) + 2, "inexact-number") for row in np.flatnonzero(refused)]


@pytest.mark.parametrize(
    "values", [pa.array([True, False] * 20), pa.array([True] * 40), pa.array(["TRUE", "false"] * 20)]
)
def test_read_levels_names_a_column_of_true_and_false_once_where_they_are_no_levels(
    tmp_path: Path, values: pa.Array
) -> None:
    table = _table(tmp_path, values)

    assert set(read_levels(table, "x", levels=("1", "2", "3"))) == {-1}
    assert _rules(table) == [(1, "wrong-type")]


def test_read_levels_refuses_true_among_levels_that_have_no_zero(tmp_path: Path) -> None:
    table = _table(tmp_path, pa.array(["1", "TRUE", "3"]))

    assert read_levels(table, "x", levels=("1", "2", "3")).tolist() == [0, -1, 2]
    assert _rules(table) == [(3, "unknown-level")]


@pytest.mark.parametrize("values", [pa.array([True, False, None]), pa.array(["TRUE", "false", ""])])
def test_read_numbers_names_a_column_of_true_and_false_once(tmp_path: Path, values: pa.Array) -> None:
    table = _table(tmp_path, values)

    assert np.isnan(read_numbers(table, "x", limits=(0.0, 5.0))).all()
    assert _rules(table) == [(1, "wrong-type")]


@pytest.mark.parametrize("values", [pa.array([True, False, None]), pa.array(["TRUE", "false", ""])])
def test_read_numbers_takes_true_and_false_where_the_range_is_zero_to_one(tmp_path: Path, values: pa.Array) -> None:
    np.testing.assert_array_equal(read_numbers(_table(tmp_path, values), "x", limits=(0.0, 1.0)), [1, 0, NAN])
