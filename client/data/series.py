"""Read a series file: measurements at irregular times become the mean of each cell of the schema's grid."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from client.data.columns import empty_cells, read_numbers, read_times
from client.data.ids import without_asides
from client.data.patients import PatientRows, find_patients
from client.data.problems import ProblemLog
from client.data.tables import TableCells, read_table
from shared_model.schema import Schema, Series

TIME = "time"
_RECKONED = 16  # steps of its type that a time may have lost in sums and products
_EDGE = 1e-9  # 0.3 / 0.1 is 2.9999999999999996: a time written on a cell's edge belongs to the cell that it opens


def read_series(
    path: Path, name: str, schema: Schema, patients: PatientRows, *, log: ProblemLog
) -> tuple[Float64[np.ndarray, "patient _time _channel"], Bool[np.ndarray, " patient"], tuple[str, ...]]:
    """One series of all patients.

    Args:
        path: the series file: patient id, time, one column per channel.
        name: the series in the schema.
        schema: the study.
        patients: rows of patients.*.
        log: receives every problem.

    Returns:
        Mean of the measurements per cell (NaN = not measured), whether the patient has any, and columns not read.
    """
    series = schema.series[name]
    values = np.full((len(patients), series.steps, len(series.channels)), np.nan)
    columns = [schema.study.patient_id, TIME, *(channel.name for channel in series.channels)]
    table = read_table(path, wanted=columns, log=log)
    if table is None:
        return values, np.zeros(len(patients), dtype=bool), ()
    table = without_asides(table, schema.study.patient_id)
    rows = find_patients(table, schema.study.patient_id, patients)
    cells = _read_cells(table, series)
    usable = (rows >= 0) & (cells >= 0)
    for number, channel in enumerate(series.channels):
        measured = read_numbers(table, channel.name, limits=channel.range, unit=channel.unit)
        values[:, :, number] = average_on_grid(
            rows[usable], cells[usable], measured[usable], shape=(len(patients), series.steps)
        )
    present = np.asarray(np.isfinite(values).any(axis=(1, 2)))
    return values, present, table.ignored


def _read_cells(table: TableCells, series: Series) -> Int64[np.ndarray, " row"]:
    """Cell of the grid of each row, -1 = refused."""
    times, spacing = read_times(table, TIME, unit=series.time_unit)
    if TIME in table:
        missing = empty_cells(table, TIME)
        remedy = "Fill it or remove the row"
        table.refuse(missing, column=TIME, rule="missing-time", expected=f"a time in {series.time_unit}", remedy=remedy)
    coarse = spacing > series.step / 2
    if coarse.any():
        expected = f"times that tell cells of {series.step:g} {series.time_unit} apart"
        remedy = f"Write the column as float64; {table.columns[TIME].type_name} has too few digits"
        table.refuse(coarse, column=TIME, rule="inexact-time", expected=expected, remedy=remedy)
        times[coarse] = np.nan
    slack = np.minimum(_RECKONED * spacing, series.step / 8)
    cells = grid_cells(times, start=series.start, step=series.step, slack=slack)
    outside = (cells < 0) | (cells >= series.steps)
    end = series.start + series.step * series.steps
    if outside.any():
        expected = f"a time from {series.start:g} to before {end:g} {series.time_unit}"
        remedy = "Check the unit and where time zero lies, or remove the row"
        table.refuse(outside, column=TIME, rule="outside-grid", expected=expected, remedy=remedy)
    return np.where(np.isnan(cells) | outside, -1, cells).astype(np.int64)


def grid_cells(
    times: Float64[np.ndarray, " row"], *, start: float, step: float, slack: Float64[np.ndarray, " row"] | float = 0.0
) -> Float64[np.ndarray, " row"]:
    """Number of the half-open cell [start + k step, start + (k + 1) step) that holds each time; NaN where time is.

    Args:
        times: in the unit of the grid.
        start: where cell 0 begins.
        step: width of a cell.
        slack: what a time may lie before an edge and still be meant for the cell that it opens.
    """
    cells: Float64[np.ndarray, " row"] = np.floor((times - start + slack) / step + _EDGE)
    return cells


def average_on_grid(
    rows: Int64[np.ndarray, " measurement"],
    cells: Int64[np.ndarray, " measurement"],
    values: Float64[np.ndarray, " measurement"],
    *,
    shape: tuple[int, int],
) -> Float64[np.ndarray, "patient time"]:
    """Mean of the values of each patient and cell; NaN where there is none. NaN values are not measurements.

    Args:
        rows: patient of each value.
        cells: cell of the grid of each value.
        values: what was measured; NaN = nothing.
        shape: number of patients and of cells.
    """
    measured = ~np.isnan(values)
    flat = rows[measured] * shape[1] + cells[measured]
    size = shape[0] * shape[1]
    counts = np.bincount(flat, minlength=size)
    means = np.full(size, np.nan)
    means[flat] = values[measured]  # one of each cell: differences to it keep all digits, and equal values their mean
    away = np.bincount(flat, weights=values[measured] - means[flat], minlength=size)
    means += np.divide(away, counts, out=np.zeros(size), where=counts > 0)
    return means.reshape(shape)
