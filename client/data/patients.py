"""Read patients.*: who the patients are, their outcome and their static predictors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int8, Int64

from client.data.columns import empty_cells, read_flags, read_levels, read_numbers
from client.data.ids import read_ids, refuse_ids, refuse_twins, without_asides
from client.data.likely_names import advise_file, misnamed_files, similar_files
from client.data.look_alikes import Known
from client.data.problems import ProblemLog, fault, quote
from client.data.tables import TableCells, candidates, find_table, read_table
from shared_model.schema import Schema

PATIENTS = "patients"


@dataclass(frozen=True)
class PatientRows:
    """The rows of patients.*, in file order.

    Attributes:
        ids: patient ids; unique unless a problem was reported.
        outcome: 0 or 1; -1 = not known, only where patients are read without it.
        numbers: numeric and binary predictors in schema order; NaN = missing.
        levels: index of the level per categorical predictor in schema order; -1 = missing.
        recorded: per event set with a `recorded` column that the file has, whether it was recorded.
        ignored: columns of the file that the study does not use.
        complete: whether every patient of the file is here; if not, "unknown patient" cannot be told in other files.
    """

    ids: tuple[str, ...]
    outcome: Int8[np.ndarray, " patient"]
    numbers: Float64[np.ndarray, "patient number"]
    levels: Int64[np.ndarray, "patient category"]
    recorded: Mapping[str, Bool[np.ndarray, " patient"]]
    ignored: tuple[str, ...]
    complete: bool

    def __len__(self) -> int:
        return len(self.ids)


def no_patients(schema: Schema) -> PatientRows:
    """What other tables are read against when patients.* is unusable, so that their own faults are still found."""
    return PatientRows(
        ids=(),
        outcome=np.zeros(0, dtype=np.int8),
        numbers=np.zeros((0, len(schema.numbers))),
        levels=np.zeros((0, len(schema.categories)), dtype=np.int64),
        recorded={},
        ignored=(),
        complete=False,
    )


def read_patients(
    folder: Path, schema: Schema, *, event_sets: tuple[str, ...], log: ProblemLog, with_outcome: bool = True
) -> PatientRows:
    """The patients of a hospital.

    Args:
        folder: the hospital's folder.
        schema: the study.
        event_sets: event sets whose file the hospital has: only these need their `recorded` column.
        log: receives every problem.
        with_outcome: every patient's outcome must be there; False also reads patients of whom it is not known.
    """
    path = find_table(folder, PATIENTS, log=log)
    if path is None:
        if not candidates(folder, PATIENTS) and not misnamed_files(folder, PATIENTS):
            similar = similar_files(folder, PATIENTS)
            remedy = advise_file(similar[0], PATIENTS) if similar else "Point to the folder that holds it, or export it"
            got = " and ".join(map(quote, similar)) or "no patients"
            detail = fault(expected="patients.csv or patients.parquet", got=got, remedy=remedy)
            log.add(PATIENTS + ".csv", rule="no-patients", detail=detail)
        return no_patients(schema)
    recorded = {name: column for name in event_sets if (column := schema.events[name].recorded)}
    study = schema.study
    wanted = [study.patient_id, study.outcome, *(column.name for column in schema.static), *recorded.values()]
    optional = () if with_outcome else (study.outcome,)
    needed = [name for name in dict.fromkeys(wanted) if name not in optional]
    table = read_table(path, wanted=needed, log=log, optional=optional)
    if table is None:
        return no_patients(schema)
    table = without_asides(table, study.patient_id)
    if table.complete and not len(table):
        detail = fault(expected="at least one patient", got="a header only", remedy="Check the export's filter")
        log.add(table.file, rule="no-rows", detail=detail)
    refused = refuse_ids(table, study.patient_id, defines=True)
    ids = read_ids(table, study.patient_id, defines=True)
    _refuse_twice(table, study.patient_id, ids)
    refuse_twins(table, study.patient_id, ids)
    used_later = {events.recorded for events in schema.events.values()}
    return PatientRows(
        ids=tuple(ids),
        outcome=_read_outcome(table, study.outcome, id_column=study.patient_id)
        if with_outcome
        else _read_known_outcome(table, study.outcome),
        numbers=_stack([_read_number(table, schema, column.name) for column in schema.numbers], len(table)),
        levels=_stack([read_levels(table, c.name, levels=c.levels) for c in schema.categories], len(table), np.int64),
        recorded={name: _read_recorded(table, column) for name, column in recorded.items() if column in table},
        ignored=tuple(name for name in table.ignored if name not in used_later),
        complete=table.complete and study.patient_id in table and not refused,
    )


def _stack(columns: list[np.ndarray], n_rows: int, dtype: type = np.float64) -> np.ndarray:
    return np.stack(columns, axis=1).astype(dtype) if columns else np.zeros((n_rows, 0), dtype=dtype)


def _read_number(table: TableCells, schema: Schema, name: str) -> np.ndarray:
    column = next(column for column in schema.numbers if column.name == name)
    return (
        read_flags(table, name)
        if column.kind == "binary"
        else read_numbers(table, name, limits=column.range, unit=column.unit)
    )


def _refuse_twice(table: TableCells, column: str, ids: pd.Series) -> None:
    twice = ids.duplicated().to_numpy() & (ids != "").to_numpy()
    if twice.any():
        first = {text: int(line) for text, line in zip(reversed(ids), table.lines[::-1], strict=True)}
        table.refuse(
            twice,
            column=column,
            rule="duplicate-id",
            expected="each patient once",
            remedy="Keep one row a patient",
            hint=lambda row: f"as in row {first[ids.iloc[row]]}",
        )


def _read_outcome(table: TableCells, column: str, *, id_column: str) -> Int8[np.ndarray, " patient"]:
    values = read_flags(table, column, rule="outcome-not-0-1")
    if column not in table:
        return np.zeros(len(table), dtype=np.int8)
    empty = empty_cells(table, column)
    remedy = "Fill it or leave the patient out of the study"
    others = [cells.missing for name, cells in table.columns.items() if name != id_column]

    def say(row: int) -> str:
        return (
            "in a row that holds an id alone; a footer or a note is no patient" if all(m[row] for m in others) else ""
        )

    table.refuse(empty, column=column, rule="missing-outcome", expected="0 or 1", remedy=remedy, hint=say)
    known = values[~np.isnan(values)]
    if len(known) == len(table) > 0:
        for value, rule, what in ((1, "no-events", "event"), (0, "no-non-events", "non-event")):
            if not (known == value).any():
                got = f"{1 - value} for all {len(known)} patients"
                detail = fault(
                    expected=f"at least one {what} ({value})", got=got, remedy="Check how the outcome was derived"
                )
                table.log.add(table.file, column=column, rule=rule, detail=detail)
    outcome: Int8[np.ndarray, " patient"] = np.nan_to_num(values).astype(np.int8)
    return outcome


def _read_known_outcome(table: TableCells, column: str) -> Int8[np.ndarray, " patient"]:
    """The outcome of patients of whom it is known; -1 of the others."""
    values = read_flags(table, column, rule="outcome-not-0-1") if column in table else np.full(len(table), np.nan)
    outcome: Int8[np.ndarray, " patient"] = np.where(np.isnan(values), -1, values).astype(np.int8)
    return outcome


def _read_recorded(table: TableCells, column: str) -> Bool[np.ndarray, " patient"]:
    values = read_flags(table, column)
    empty = empty_cells(table, column)
    remedy = "Write 1 if the events of this patient were recorded, 0 if not"
    table.refuse(empty, column=column, rule="missing-recorded", expected="0 or 1", remedy=remedy)
    recorded: Bool[np.ndarray, " patient"] = values == 1
    return recorded


def find_patients(table: TableCells, column: str, patients: PatientRows) -> Int64[np.ndarray, " row"]:
    """Position of each row's patient in patients.*, -1 = empty, refused or unknown (reported)."""
    refuse_ids(table, column)
    ids = read_ids(table, column)
    first = pd.Series(np.arange(len(patients)), index=pd.Index(patients.ids, dtype="str"), dtype=np.int64)
    first = first[~first.index.duplicated()]
    found = first.reindex(ids, fill_value=-1).to_numpy(dtype=np.int64, copy=True)
    given = (ids != "").to_numpy()
    found[~given] = -1
    wrong = (found < 0) & given
    if patients.complete and wrong.any():
        similar = Known(patients.ids)
        table.refuse(
            wrong,
            column=column,
            rule="unknown-patient",
            expected="an id of patients.*",
            remedy="Add the patient to patients.* or remove the row",
            hint=lambda row: similar.hint(ids.iloc[row]),
        )
    return found
