"""Read an events file: the items that each patient got, aggregated as the schema says."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from client.data.columns import empty_cells, read_levels, read_numbers
from client.data.ids import without_asides
from client.data.patients import PatientRows, find_patients
from client.data.problems import ProblemLog
from client.data.tables import TableCells, read_table
from shared_model.schema import Schema

ITEM = "item"
DOSE = "dose"
_OPTIONAL = (DOSE, "time")  # the contract allows them; the aggregates "any" and "count" need neither


def read_events(
    path: Path, name: str, schema: Schema, patients: PatientRows, *, log: ProblemLog
) -> tuple[Float32[np.ndarray, "patient _item"], Bool[np.ndarray, " patient"], tuple[str, ...]]:
    """One event set of all patients.

    Args:
        path: the events file: patient id, item, and for aggregate "dose" the dose.
        name: the event set in the schema.
        schema: the study.
        patients: rows of patients.*.
        log: receives every problem.

    Returns:
        The aggregate per item (any: 0/1; count; summed dose), whether the patient's events were recorded, and columns
        not read. Without a `recorded` column in the schema a patient is recorded if there is at least one row.
    """
    events = schema.events[name]
    with_dose = events.aggregate == "dose"
    n_items = len(events.items)
    wanted = [schema.study.patient_id, ITEM, *([DOSE] if with_dose else [])]
    table = read_table(path, wanted=wanted, log=log)
    if table is None:
        return np.zeros((len(patients), n_items), dtype=np.float32), np.zeros(len(patients), dtype=bool), ()
    table = without_asides(table, schema.study.patient_id)
    rows = find_patients(table, schema.study.patient_id, patients)
    items = _read_items(table, events.items)
    weights = _read_doses(table) if with_dose else np.ones(len(table))
    usable = (rows >= 0) & (items >= 0)
    flat = rows[usable] * n_items + items[usable]
    totals = np.bincount(flat, weights=weights[usable], minlength=len(patients) * n_items).reshape(-1, n_items)
    present = _read_present(table, rows, patients.recorded.get(name), column=schema.study.patient_id, n=len(patients))
    amounts = totals > 0 if events.aggregate == "any" else totals
    ignored = tuple(column for column in table.ignored if column not in _OPTIONAL)
    return amounts.astype(np.float32), present, ignored


def _read_items(table: TableCells, items: tuple[str, ...]) -> Int64[np.ndarray, " row"]:
    codes = read_levels(table, ITEM, levels=items, rule="unknown-item")
    if ITEM in table:
        empty = empty_cells(table, ITEM)
        table.refuse(empty, column=ITEM, rule="unknown-item", expected="an item", remedy="Fill it or remove the row")
    return codes


def _read_doses(table: TableCells) -> Float64[np.ndarray, " row"]:
    doses: Float64[np.ndarray, " row"] = read_numbers(table, DOSE)
    if DOSE in table:
        empty = empty_cells(table, DOSE)
        remedy = "Fill it or remove the row"
        table.refuse(empty, column=DOSE, rule="missing-dose", expected="a dose", remedy=remedy)
        table.refuse(doses < 0, column=DOSE, rule="negative-dose", expected="0 or more", remedy="Check the sign")
    doses[np.isnan(doses)] = 0
    return doses


def _read_present(
    table: TableCells,
    rows: Int64[np.ndarray, " row"],
    recorded: Bool[np.ndarray, " patient"] | None,
    *,
    column: str,
    n: int,
) -> Bool[np.ndarray, " patient"]:
    if recorded is None:
        present = np.zeros(n, dtype=bool)
        present[rows[rows >= 0]] = True
        return present
    contradicts = (rows >= 0) & ~recorded[rows] if n else np.zeros(len(rows), dtype=bool)
    if contradicts.any():
        remedy = "Set recorded to 1 in patients.* or remove the row"
        expected = "no events of a patient whose events were not recorded"
        table.refuse(contradicts, column=column, rule="not-recorded", expected=expected, remedy=remedy)
    return recorded
