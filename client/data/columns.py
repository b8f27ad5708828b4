"""Turn the raw cells of one column into numbers, flags, levels or texts; every cell that does not fit is reported."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int64

from client.data.tables import Table

_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_WHOLE_FLOAT = re.compile(r"([+-]?[0-9]+)\.0+")
_MISSING = "Leave the cell empty if the value is not known"


def read_texts(table: Table, column: str) -> pd.Series:
    """Cells as text without surrounding space; "" = missing. Whole numbers from Parquet have no decimals."""
    if column not in table:
        return pd.Series([""] * len(table), dtype="str")
    cells = table.columns[column]
    if not pd.api.types.is_float_dtype(cells.dtype):
        return cells.str.strip()
    return pd.Series(
        ["" if np.isnan(value) else without_decimals(repr(value)) for value in cells.tolist()], dtype="str"
    )


def without_decimals(text: str) -> str:
    """`1` for `1.0`; any other text as it is."""
    whole = _WHOLE_FLOAT.fullmatch(text)
    return whole[1] if whole else text


def read_numbers(
    table: Table, column: str, *, limits: tuple[float, float] | None = None
) -> Float64[np.ndarray, " row"]:
    """Finite numbers, NaN = missing; what is no finite number or lies outside [lo, hi] is reported.

    Args:
        table: the table.
        column: a column name; if the table lacks it, all values are missing.
        limits: smallest and largest allowed value.

    Returns:
        One value a row; NaN also where a cell was refused.
    """
    values, wrong = _parse_numbers(table, column)
    if wrong.any():
        remedy = "Write decimals with a point, no unit. " + _MISSING
        table.refuse(wrong, column=column, rule="not-a-number", expected="a number", remedy=remedy)
    if limits is not None:
        low, high = limits
        outside = (values < low) | (values > high)
        if outside.any():
            remedy = "Check the unit and the value. " + _MISSING
            table.refuse(outside, column=column, rule="out-of-range", expected=f"{low:g} to {high:g}", remedy=remedy)
            values[outside] = np.nan
    return values


def read_flags(table: Table, column: str, *, rule: str = "not-0-1") -> Float64[np.ndarray, " row"]:
    """0 or 1, NaN = missing; any other cell is reported under `rule`."""
    values, wrong = _parse_numbers(table, column)
    wrong |= ~np.isnan(values) & (values != 0) & (values != 1)
    if wrong.any():
        table.refuse(wrong, column=column, rule=rule, expected="0 or 1", remedy="Write 0 for no and 1 for yes")
        values[wrong] = np.nan
    return values


def read_levels(
    table: Table, column: str, *, levels: Sequence[str], rule: str = "unknown-level"
) -> Int64[np.ndarray, " row"]:
    """Index of each cell's level, -1 = missing or refused. Levels compare as text; `1.0` also equals level `1`."""
    texts = read_texts(table, column)
    index = {without_decimals(level.strip()): number for number, level in enumerate(levels)}
    index |= {level.strip(): number for number, level in enumerate(levels)}
    known = {text: index.get(text, index.get(without_decimals(text), -1)) for text in texts.unique()}
    codes = texts.map(known).to_numpy(dtype=np.int64)
    wrong = (codes < 0) & (texts != "").to_numpy()
    if wrong.any():
        remedy = "Map it to one that the schema lists"
        table.refuse(wrong, column=column, rule=rule, expected="one of " + ", ".join(levels), remedy=remedy)
    return codes


def _parse_numbers(table: Table, column: str) -> tuple[Float64[np.ndarray, " row"], Bool[np.ndarray, " row"]]:
    if column not in table:
        return np.full(len(table), np.nan), np.zeros(len(table), dtype=bool)
    cells = table.columns[column]
    if pd.api.types.is_float_dtype(cells.dtype):
        values = cells.to_numpy(dtype=np.float64, copy=True)
        wrong = np.isinf(values)
    else:
        texts = cells.str.strip()
        fits = texts.str.fullmatch(_NUMBER).to_numpy(dtype=bool)
        values = np.full(len(table), np.nan)
        values[fits] = texts[fits].astype(np.float64)
        wrong = (~fits & (texts != "").to_numpy()) | np.isinf(values)  # 1e999 is written as a number but is none
    values[wrong] = np.nan
    return values, wrong
