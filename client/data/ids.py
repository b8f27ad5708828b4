"""Patient ids as text, the same whatever type a table writes them in; what may have lost digits is refused.

`20230000` is the same id as text, as any integer, and as a float that can hold it. `007` is not 7.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from jaxtyping import Bool

from client.data.causes import NUMBER, word_cause
from client.data.cells import Cells
from client.data.columns import empty_cells, without_decimals
from client.data.problems import fault, quote
from client.data.tables import Table

_SCIENTIFIC = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?[eE][+-]?[0-9]+")
_SURELY_SCIENTIFIC = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*[eE][+-]?|[eE][+-])[0-9]+")  # 12E3 alone may be a name
_FLOAT = re.compile(r"[+-]?[0-9]+\.0")
_FIRST_UNSURE = 2**53  # of float64: its neighbour above is written alike


def read_ids(table: Table, column: str, *, defines: bool = False) -> pd.Series:
    """Each row's patient id; "" where there is none, or none that can be trusted.

    Args:
        table: the table.
        column: of ids.
        defines: whether the ids of all other tables are compared with these.
    """
    if column not in table:
        return pd.Series([""] * len(table), dtype="str")
    texts, _ = _judge(table.columns[column], defines=defines)
    return texts


def refuse_ids(table: Table, column: str, *, defines: bool = False) -> bool:
    """Whether an id column has ids that cannot be read; these are reported, and rows without an id."""
    if column not in table:
        return False
    cells = table.columns[column]
    empty = empty_cells(table, column)
    table.refuse(empty, column=column, rule="empty-id", expected="a patient id", remedy="Fill it or remove the row")
    if cells.kind in ("flag", "duration", "other"):
        table.refuse_type(column, expected="patient ids", remedy="Write them as text or as whole numbers")
        return True
    _, wrong = _judge(cells, defines=defines)
    if cells.kind == "float" and wrong.any():
        _refuse_floats(table, column, wrong)
    elif wrong.any():
        words = np.array([word_cause(text) is not None for text in cells.texts], dtype=bool) & wrong
        table.refuse(words, column=column, rule="empty-id", expected="a patient id", remedy="Fill it or remove the row")
        table.refuse(
            wrong & ~words,
            column=column,
            rule="inexact-id",
            expected="an id with all its digits",
            remedy="Export the ids as text: a spreadsheet or a float may have lost digits",
        )
    return bool(wrong.any())


def _judge(cells: Cells, *, defines: bool) -> tuple[pd.Series, Bool[np.ndarray, " row"]]:
    """Ids, and where a cell that holds something is none."""
    if cells.kind in ("flag", "duration", "other"):
        return pd.Series([""] * len(cells), dtype="str"), np.zeros(len(cells), dtype=bool)
    if cells.kind == "float":
        numbers = cells.floats.astype(np.float64)
        wrong = ~cells.missing & ~((np.abs(numbers) < cells.first_unsure) & (numbers == np.floor(numbers)))
        texts = cells.texts
    else:
        numeric = defines and all(re.fullmatch(NUMBER, text) for text in cells.texts.unique() if text)
        known = {text: _judge_text(text, numeric=numeric) for text in cells.texts.unique()}
        wrong = np.array([bool(text) and not known[text] for text in cells.texts], dtype=bool)
        texts = cells.texts.map(known).astype("str")
    return texts.where(~wrong, ""), wrong


def _judge_text(text: str, *, numeric: bool) -> str:
    """The id; empty if none.

    Args:
        text: a cell.
        numeric: whether the column defines the ids, and all of them look like numbers.
    """
    if word_cause(text) or (_SCIENTIFIC if numeric else _SURELY_SCIENTIFIC).fullmatch(text):
        return ""
    whole = without_decimals(text)
    return "" if _FLOAT.fullmatch(text) and abs(int(whole)) >= _FIRST_UNSURE else whole


def _refuse_floats(table: Table, column: str, wrong: Bool[np.ndarray, " row"]) -> None:
    """One problem for the column: its type is the cause, whatever the rows."""
    cells = table.columns[column]
    rows = np.flatnonzero(wrong)
    detail = fault(
        expected=f"whole numbers that {cells.type_name} tells apart (below {cells.first_unsure:,})",
        got=f"{quote(cells.shown(int(rows[0])))} and {len(rows) - 1:,} more such ids",
        remedy="Write the ids as text or as int64, from where they still have all digits",
    )
    table.log.add(table.file, row=int(table.lines[rows[0]]), column=column, rule="inexact-id", detail=detail)
