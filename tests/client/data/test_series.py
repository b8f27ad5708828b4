from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.data import read_hospital
from client.data.series import average_on_grid, grid_cells
from shared_model.errors import DataError
from shared_model.schema import Schema, load_schema

if TYPE_CHECKING:
    from tests.client.conftest import SmallHospital

MEASUREMENTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.one_of(st.just(float("nan")), st.floats(-1e6, 1e6))), max_size=60
)


def _average(measurements: list[tuple[int, int, float]]) -> np.ndarray:
    rows, cells, values = (np.array([m[i] for m in measurements]) for i in range(3))
    return average_on_grid(rows.astype(np.int64), cells.astype(np.int64), values.astype(np.float64), shape=(4, 5))


def _with_grid(schema: Schema, *, start: float, step: float, steps: int) -> Schema:
    grid = {"start": start, "step": step, "steps": steps}
    return schema.model_copy(update={"series": {"vitals": schema.series["vitals"].model_copy(update=grid)}})


@given(MEASUREMENTS)
def test_average_on_grid_equals_the_mean_of_each_cell(measurements: list[tuple[int, int, float]]) -> None:
    cells: dict[tuple[int, int], list[float]] = defaultdict(list)
    for row, cell, value in measurements:
        if not np.isnan(value):
            cells[row, cell].append(value)
    expected = np.full((4, 5), np.nan)
    for place, values in cells.items():
        expected[place] = sum(values) / len(values)

    np.testing.assert_allclose(_average(measurements), expected, rtol=1e-12, atol=1e-9)


@given(MEASUREMENTS, st.randoms(use_true_random=False))
def test_average_on_grid_ignores_the_order_of_rows(measurements: list[tuple[int, int, float]], random: object) -> None:
    shuffled = list(measurements)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    np.testing.assert_allclose(_average(shuffled), _average(measurements), rtol=1e-9, atol=1e-6)


@given(
    start=st.integers(-50, 50),
    step=st.sampled_from([0.1, 0.2, 0.25, 0.3, 0.7, 1.0, 5.0, 60.0]),
    steps=st.integers(1, 50),
)
def test_grid_puts_a_time_on_an_edge_into_the_cell_that_it_opens(start: int, step: float, steps: int) -> None:
    # Decimal fractions have no exact binary form: 0.3 / 0.1 lies below 3.
    times = np.array([float(f"{start / 10 + step * cell:.6f}") for cell in range(steps + 1)])

    cells = grid_cells(times, start=start / 10, step=step)

    assert cells.tolist() == list(range(steps + 1))


def test_read_series_shifts_the_grid_by_its_start(hospital: SmallHospital) -> None:
    schema = _with_grid(hospital.schema, start=-10.0, step=5.0, steps=3)
    hospital.write("vitals.csv", "patient_id,time,hr,spo2\nP1,-10,50,\nP1,-5.1,70,\nP1,4.9,90,\n")

    series = read_hospital(hospital.folder, schema).arrays.raw["vitals"]

    np.testing.assert_array_equal(series[0, :, 0], [60, np.nan, 90])


@pytest.mark.parametrize("time", ["5", "-10.1", "1e9"])
def test_read_series_refuses_a_time_outside_the_grid(hospital: SmallHospital, time: str) -> None:
    schema = _with_grid(hospital.schema, start=-10.0, step=5.0, steps=3)
    hospital.write("vitals.csv", f"patient_id,time,hr,spo2\nP1,{time},50,\n")

    with pytest.raises(DataError) as refused:
        read_hospital(hospital.folder, schema)

    [problem] = refused.value.problems
    assert (problem.row, problem.column, problem.rule) == (2, "time", "outside-grid")
    assert "from -10 to before 5 min" in problem.detail


def test_read_series_accepts_a_file_without_rows(hospital: SmallHospital) -> None:
    hospital.write("vitals.csv", "patient_id,time,hr,spo2\n")

    assert not read_hospital(hospital.folder, hospital.schema).arrays.present["vitals"].any()


def test_average_on_grid_keeps_small_differences_of_large_values() -> None:
    values = 1.7e9 + np.array([0.25, 0.75])

    means = average_on_grid(np.array([0, 0]), np.array([0, 0]), values, shape=(1, 1))

    assert means[0, 0] == 1.7e9 + 0.5


def test_average_on_grid_gives_equal_values_their_own_mean() -> None:
    means = average_on_grid(np.zeros(4, np.int64), np.array([0, 0, 0, 1]), np.full(4, 0.1), shape=(1, 2))

    assert means.tolist() == [[0.1, 0.1]]  # else a frozen monitor would seem to move


def test_read_series_keeps_numbers_that_float32_cannot_tell_apart(hospital: SmallHospital) -> None:
    hospital.edit("schema.toml", "range = [0, 350]", "range = [1e9, 2e9]")
    schema = load_schema(hospital.folder / "schema.toml")
    hospital.write("vitals.csv", "patient_id,time,hr,spo2\nP1,0,1700000001,\nP1,5,1700000002,\n")

    hr = read_hospital(hospital.folder, schema).arrays.raw["vitals"][0, :2, 0]

    assert hr.tolist() == [1_700_000_001, 1_700_000_002]


def test_read_series_refuses_times_too_coarse_for_the_grid(hospital: SmallHospital) -> None:
    schema = _with_grid(hospital.schema, start=1.7e9, step=5.0, steps=10_000)
    times = pa.array([1.7e9 + 10, 1.7e9 + 200], pa.float32())  # float32 tells 128 s apart there
    ids, channel = pa.array(["P1", "P1"]), pa.array([60.0, 70.0])
    (hospital.folder / "vitals.csv").unlink()
    pq.write_table(
        pa.table({"patient_id": ids, "time": times, "hr": channel, "spo2": channel}),
        hospital.folder / "vitals.parquet",
    )

    with pytest.raises(DataError) as refused:
        read_hospital(hospital.folder, schema)

    assert {problem.rule for problem in refused.value.problems} == {"inexact-time"}
    assert "float32 has too few digits" in refused.value.problems[0].detail
