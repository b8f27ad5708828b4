"""Turn the cells of one column into numbers, times, flags, levels or texts; every cell that does not fit is reported.

A type that cannot hold what is wanted is reported once for the column, by its name.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from client.data.causes import LEAVE_EMPTY, NUMBER, CellCause, number_cause
from client.data.cells import FIRST_UNSURE, ColumnCells
from client.data.look_alikes import Known
from client.data.tables import TableCells
from client.data.time_units import unit_ns

_NUMERIC = ("whole", "decimal", "float")
_WHOLE_FLOAT = re.compile(r"([+-]?[0-9]+)\.0+")
_ZERO_ONE = (0.0, 1.0)
_SURE_DIGITS = 15  # of a decimal: so many survive float64
_WORDS = {"true": 1.0, "false": 0.0}
_ONLY_FLAGS = "a column of true and false alone"
_TYPE_REMEDY = {
    "flag": "Write numbers, not true and false",
    "duration": "Write the number of units",
    "other": "Write one number a cell; of points in time, the number of units from the study's time zero on",
}


def read_texts(table: TableCells, column: str) -> pd.Series:
    """Cells as text in their plain form; "" = missing, or of a type that has none. Whole floats have no decimals."""
    if column not in table or table.columns[column].kind in ("duration", "other"):
        return pd.Series([""] * len(table), dtype="str")
    return table.columns[column].texts


def empty_cells(table: TableCells, column: str) -> Bool[np.ndarray, " row"]:
    """Where a column holds nothing."""
    return table.columns[column].missing if column in table else np.ones(len(table), dtype=bool)


def without_decimals(text: str) -> str:
    """`1` for `1.0`; any other text as it is."""
    whole = _WHOLE_FLOAT.fullmatch(text)
    return whole[1] if whole else text


def read_numbers(
    table: TableCells, column: str, *, limits: tuple[float, float] | None = None, unit: str = ""
) -> Float64[np.ndarray, " row"]:
    """Finite numbers, NaN = missing; what is none, lies outside [lo, hi] or has more digits than fit is reported.

    Args:
        table: the table.
        column: a column name; if the table lacks it, all values are missing.
        limits: smallest and largest allowed value.
        unit: of the values; a column of durations is converted to it.

    Returns:
        One value a row; NaN also where a cell was refused.
    """
    values = _parse_numbers(table, column, unit=unit, takes_flags=limits == _ZERO_ONE)
    if limits is not None:
        low, high = limits
        outside = (values < low) | (values > high)
        if outside.any():
            remedy = f"Check the unit and the value. {LEAVE_EMPTY}"
            table.refuse(outside, column=column, rule="out-of-range", expected=f"{low:g} to {high:g}", remedy=remedy)
            values[outside] = np.nan
    _refuse_inexact(table, column, values)
    return values


def _refuse_inexact(table: TableCells, column: str, values: Float64[np.ndarray, " row"]) -> None:
    """Refuse whole numbers beyond 2^53 that float64 does not hold; a measured 0.1 or 1e23 keeps all of its digits."""
    large = np.abs(values) >= FIRST_UNSURE
    if not large.any() or table.columns[column].kind == "float":  # what a float column lost was lost before
        return
    texts = table.columns[column].texts
    inexact = np.zeros(len(values), dtype=bool)
    for row in np.flatnonzero(large):
        inexact[row] = not _is_measured(texts.iloc[row]) and Decimal(texts.iloc[row]) != Decimal(float(values[row]))
    table.refuse(
        inexact,
        column=column,
        rule="inexact-number",
        expected=f"a number that float64 holds: beyond {FIRST_UNSURE:,} not every whole number",
        remedy=f"Check the value: an identifier is no measurement; else use a larger unit. {LEAVE_EMPTY}",
    )
    values[inexact] = np.nan


def _is_measured(text: str) -> bool:
    """True if a number is written with an exponent, and no more digits than any float64 keeps."""
    mantissa, _, exponent = text.lower().partition("e")
    return bool(exponent) and len(mantissa.replace(".", "").strip("+-0")) <= _SURE_DIGITS


def read_times(
    table: TableCells, column: str, *, unit: str
) -> tuple[Float64[np.ndarray, " row"], Float64[np.ndarray, " row"]]:
    """Times, and how far each may lie from what its writer meant, in a unit; NaN = missing or refused.

    A float32 that was reckoned, as 3 x 0.1, is some steps of its type away from the number that is meant.

    Args:
        table: the table.
        column: a column name; if the table lacks it, all times are missing.
        unit: what numbers mean; a column of durations is converted to it.
    """
    times = _parse_numbers(table, column, unit=unit)
    spacing = (table.columns[column].ulp if column in table else 0.0) * np.abs(times)
    return times, spacing


def read_flags(table: TableCells, column: str, *, rule: str = "not-0-1") -> Float64[np.ndarray, " row"]:
    """0 or 1, NaN = missing; true and false count as 1 and 0; any other cell is reported under `rule`."""
    if column not in table:
        return np.full(len(table), np.nan)
    cells = table.columns[column]
    if cells.kind in ("duration", "other"):
        table.refuse_type(column, expected="0 or 1", remedy="Write 0 for no and 1 for yes")
        return np.full(len(table), np.nan)
    if cells.kind == "text":
        values = _text_numbers(cells.texts)
        words = _word_values(cells)
        values = np.where(np.isnan(words), values, words)
    else:
        values = cells.numbers.copy()
    wrong = ~cells.missing & (values != 0) & (values != 1)
    if wrong.any():
        table.refuse(wrong, column=column, rule=rule, expected="0 or 1", remedy="Write 0 for no and 1 for yes")
        values[wrong] = np.nan
    return values


def read_levels(
    table: TableCells, column: str, *, levels: Sequence[str], rule: str = "unknown-level"
) -> Int64[np.ndarray, " row"]:
    """Index of each cell's level, -1 = missing or refused.

    Levels compare as plain text. Numbers compare by value: `1.0`, and 1 of any type, equal level `1`; 0.1 of a decimal
    or float type equals `0.1` and `0.10`, where only one of them is a level. True and false equal the level of that
    name, in any case, else `1` and `0` where both are levels.
    """
    if column not in table:
        return np.full(len(table), -1)
    cells = table.columns[column]
    texts = cells.texts if cells.kind not in ("duration", "other") else None
    if texts is None or (_are_flags(cells) and not _take_flags(levels)):
        got = _ONLY_FLAGS if cells.kind == "text" else ""
        table.refuse_type(column, expected="one of " + ", ".join(levels), got=got, remedy="Write the levels as text")
        return np.full(len(table), -1)
    known = {text: _find_level(text, levels, cells.kind) for text in cells.distinct}
    codes = texts.map(known).to_numpy(dtype=np.int64)
    wrong = (codes < 0) & ~cells.missing
    if wrong.any():
        similar = Known(levels)
        table.refuse(
            wrong,
            column=column,
            rule=rule,
            expected="one of " + ", ".join(levels),
            remedy="Map it to one that the schema lists, or leave the cell empty if it is not known",
            hint=lambda row: similar.hint(texts.iloc[row]),
        )
    return codes


def _are_flags(cells: ColumnCells) -> bool:
    """True if a column holds true and false and nothing else."""
    words = {text.casefold() for text in cells.distinct} - {""}
    return bool(words) and words <= set(_WORDS)


def _word_values(cells: ColumnCells) -> Float64[np.ndarray, " row"]:
    """1 for true, 0 for false, NaN for any other text."""
    values: Float64[np.ndarray, " row"] = cells.texts.str.lower().map(_WORDS).to_numpy(dtype=np.float64)
    return values


def _take_flags(levels: Sequence[str]) -> bool:
    """True if both true and false are, or stand for, a level."""
    return all(_find_level(word, levels, "flag") >= 0 for word in _WORDS)


def _find_level(text: str, levels: Sequence[str], kind: str) -> int:
    if not text:
        return -1
    shape = _number_shape if kind in _NUMERIC else without_decimals
    alike = [number for number, level in enumerate(levels) if shape(level) == shape(text)]
    if text in levels and (kind != "float" or len(alike) == 1):  # a float cannot tell 1.1 from 1.10
        return levels.index(text)
    if len(alike) == 1:
        return alike[0]
    truth = text.casefold() if kind in ("text", "flag") else ""
    if truth in _WORDS:
        words = [number for number, level in enumerate(levels) if level.casefold() == truth]
        if len(words) == 1:
            return words[0]
        if not words and {"0", "1"} <= set(levels):
            return levels.index(f"{_WORDS[truth]:g}")
    return -1


def _number_shape(text: str) -> str:
    """`0.1` for `0.10`, `1` for `1.0`; any other text as it is."""
    return text.rstrip("0").rstrip(".") if re.fullmatch(r"[+-]?[0-9]+\.[0-9]+", text) else text


def _parse_numbers(
    table: TableCells, column: str, *, unit: str = "", takes_flags: bool = False
) -> Float64[np.ndarray, " row"]:
    if column not in table:
        return np.full(len(table), np.nan)
    cells = table.columns[column]
    if cells.kind in _NUMERIC or (cells.kind == "flag" and takes_flags):
        values = cells.numbers.copy()
        infinite = np.isinf(values)
        table.refuse(infinite, column=column, rule="not-a-number", expected="a number", remedy=LEAVE_EMPTY)
        values[infinite] = np.nan
        return values
    if cells.kind == "text":
        return _numbers_of_text(table, column, takes_flags=takes_flags)
    length = unit_ns(unit)
    if cells.kind == "duration" and length:
        return cells.times(length)
    remedy = _TYPE_REMEDY[cells.kind]
    table.refuse_type(column, expected=f"numbers in {unit}" if unit else "numbers", remedy=remedy)
    return np.full(len(table), np.nan)


def _text_numbers(texts: pd.Series) -> Float64[np.ndarray, " row"]:
    """Numbers of what is written as a finite one, NaN elsewhere."""
    fits = texts.str.fullmatch(NUMBER).to_numpy(dtype=bool)
    values = np.full(len(texts), np.nan)
    values[fits] = texts[fits].astype(np.float64)
    values[np.isinf(values)] = np.nan  # 1e999 is written as a number but is none
    return values


def _numbers_of_text(table: TableCells, column: str, *, takes_flags: bool) -> Float64[np.ndarray, " row"]:
    cells = table.columns[column]
    values = _text_numbers(cells.texts)
    if np.isnan(values).all() and _are_flags(cells):
        if takes_flags:
            return _word_values(cells)
        table.refuse_type(column, expected="numbers", got=_ONLY_FLAGS, remedy=_TYPE_REMEDY["flag"])
        return values
    rows_by_cause: dict[CellCause, list[int]] = defaultdict(list)
    causes: dict[str, CellCause] = {}
    for row in np.flatnonzero(np.isnan(values) & ~cells.missing):
        text = cells.texts.iloc[row]
        causes.setdefault(text, number_cause(text))
        rows_by_cause[causes[text]].append(int(row))
    for cause, rows in rows_by_cause.items():
        wrong = np.zeros(len(table), dtype=bool)
        wrong[rows] = True

        def say(row: int, what: str = cause.what) -> str:  # noqa: ARG001
            return what

        table.refuse(wrong, column=column, rule=cause.rule, expected="a number", remedy=cause.remedy, hint=say)
    return values
