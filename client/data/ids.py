"""Patient ids as text, the same whatever type a table writes them in; what may have lost digits is refused.

`20230000` is the same id as text, as any integer, and as a float that can hold it. `007` is not 7. An id is what can be
printed on one line and is no quotation: it stands on screens, in pages and in tables, where nothing may be smuggled.
"""

import re
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool

from client.data.asides import find_aside
from client.data.causes import FORMULA, NUMBER, TEXT_MARK, CellCause, cell_cause
from client.data.cells import FIRST_UNSURE, ColumnCells
from client.data.columns import empty_cells, without_decimals
from client.data.look_alikes import Known, one_form
from client.data.problems import fault, quote
from client.data.tables import TableCells

_SCIENTIFIC = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?[eE][+-]?[0-9]+")
_SURELY_SCIENTIFIC = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*[eE][+-]?|[eE][+-])[0-9]+")  # 12E3 alone may be a name
_FLOAT = re.compile(r"[+-]?[0-9]+\.0")
_QUOTATION = re.compile("[\"`\u00ab\u00bb\u201c-\u201f\uff02]|^'.*'$")
_CONTROL_NAMES = {"\n": "a line break", "\r": "a line break", "\t": "a tab", "\v": "a line break", "\f": "a page break"}


@dataclass(frozen=True)
class _Fault:
    """Why a text is no id: a broken rule, and how to say it."""

    rule: str
    expected: str
    remedy: str
    what: str = ""


_EMPTY = _Fault("empty-id", "a patient id", "Fill it or remove the row")
_INEXACT = _Fault(
    "inexact-id",
    "an id with all its digits",
    "Export the ids as text: a spreadsheet or a float may have lost digits",
)
_SHEET = {
    cause: _Fault(cause.rule, "the patient id itself", cause.remedy, cause.what) for cause in (TEXT_MARK, FORMULA)
}


def without_asides(table: TableCells, column: str) -> TableCells:
    """The table without rows that are no data; these are reported.

    Args:
        table: as it was read.
        column: of patient ids.
    """
    if column not in table or table.columns[column].kind != "text":
        return table
    keep = np.ones(len(table), dtype=bool)
    no_id = table.columns[column].missing
    for name, cells in table.columns.items():  # of a row without an id, another column may say what it is
        if cells.kind != "text" or (name != column and not no_id.any()):
            continue
        judged = keep if name == column else keep & no_id
        for cause, wrong in _find_asides(table, name, judged).items():
            keep &= ~wrong

            def say(row: int, what: str = cause.what) -> str:  # noqa: ARG001
                return what

            table.refuse(wrong, column=name, rule=cause.rule, expected="a patient", remedy=cause.remedy, hint=say)
    if keep.all():
        return table
    columns = {name: cells.only(keep) for name, cells in table.columns.items()}
    return replace(table, lines=table.lines[keep], columns=columns)


def _find_asides(
    table: TableCells, column: str, judged: Bool[np.ndarray, " row"]
) -> dict[CellCause, Bool[np.ndarray, " row"]]:
    """Rows that are no data by what one column holds, for each cause.

    Args:
        table: as it was read.
        column: of texts.
        judged: rows that may be meant.
    """
    texts = table.columns[column].texts
    all_rows = judged.all()
    suspects = {
        text
        for text in (table.columns[column].distinct if all_rows else set(texts[judged]))
        if text and find_aside(text, alone=True)
    }
    found: dict[CellCause, Bool[np.ndarray, " row"]] = {}
    for row in np.flatnonzero(texts.isin(suspects).to_numpy() & judged) if suspects else ():
        alone = all(cells.missing[row] for name, cells in table.columns.items() if name != column)
        cause = find_aside(texts.iloc[row], alone=alone)
        if cause is not None:
            found.setdefault(cause, np.zeros(len(table), dtype=bool))[row] = True
    return found


def read_ids(table: TableCells, column: str, *, defines: bool = False) -> pd.Series:
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


def refuse_ids(table: TableCells, column: str, *, defines: bool = False) -> bool:
    """True if an id column has ids that cannot be read; these are reported, and rows without an id."""
    if column not in table:
        return False
    cells = table.columns[column]
    empty = empty_cells(table, column)
    table.refuse(empty, column=column, rule="empty-id", expected="a patient id", remedy="Fill it or remove the row")
    if cells.kind in ("flag", "duration", "other"):
        table.refuse_type(column, expected="patient ids", remedy="Write them as text or as whole numbers")
        return True
    _, wrong = _judge(cells, defines=defines)
    if cells.kind in ("float", "decimal") and wrong.any():
        _refuse_fractions(table, column, wrong)
    elif wrong.any():
        _refuse_texts(table, column, defines=defines)
    return bool(wrong.any())


def refuse_twins(table: TableCells, column: str, ids: pd.Series) -> None:
    """Report ids of one table that are drawn alike but are written in another form: one patient, twice.

    Args:
        table: the one that defines the ids.
        column: of ids.
        ids: what `read_ids` made of it.
    """
    if all(text.isascii() for text in ids):
        return
    forms = ids.map(one_form)
    first = dict(zip(reversed(forms), reversed(range(len(ids))), strict=True))
    twins = forms.map(first).to_numpy(dtype=np.int64)
    wrong = (ids.to_numpy(dtype=object) != ids.to_numpy(dtype=object)[twins]) & (ids != "").to_numpy()
    table.refuse(
        wrong,
        column=column,
        rule="look-alike-id",
        expected="each id in one form",
        remedy="Write it alike everywhere, and keep one row a patient",
        hint=lambda row: f"{Known([ids.iloc[twins[row]]]).hint(ids.iloc[row])}; see row {table.lines[twins[row]]}",
    )


def _judge(cells: ColumnCells, *, defines: bool) -> tuple[pd.Series, Bool[np.ndarray, " row"]]:
    """Ids, and where a cell that holds something is none."""
    if cells.kind in ("flag", "duration", "other"):
        return pd.Series([""] * len(cells), dtype="str"), np.zeros(len(cells), dtype=bool)
    if cells.kind == "float":
        numbers = cells.floats.astype(np.float64)
        wrong = ~cells.missing & ~((np.abs(numbers) < cells.first_unsure) & (numbers == np.floor(numbers)))
        texts = cells.texts
    elif cells.kind == "decimal":
        texts = cells.texts
        wrong = texts.str.contains(".", regex=False).to_numpy(dtype=bool)
    else:
        faults = _judge_texts(cells, defines=defines)
        refused = {text for text, fault in faults.items() if text and fault}
        wrong = cells.texts.isin(refused).to_numpy(dtype=bool) if refused else np.zeros(len(cells), dtype=bool)
        known = {text: without_decimals(text) for text in faults}
        is_same = all(text == plain for text, plain in known.items())
        texts = cells.texts if is_same else cells.texts.map(known).astype("str")
    return texts.where(~wrong, "") if wrong.any() else texts, wrong


def _judge_texts(cells: ColumnCells, *, defines: bool) -> dict[str, _Fault | None]:
    """Why each text is no id, None where it is one.

    Args:
        cells: of the ids.
        defines: whether the column defines the ids.
    """
    texts = cells.distinct
    numeric = defines and all(re.fullmatch(NUMBER, text) for text in texts if text)
    return {text: _find_fault(text, _SCIENTIFIC if numeric else _SURELY_SCIENTIFIC) for text in texts}


def _find_fault(text: str, scientific: re.Pattern[str]) -> _Fault | None:
    cause = cell_cause(text)
    if cause is not None:
        return _SHEET.get(cause, _EMPTY)
    if not text.isprintable() or _QUOTATION.search(text):
        return _unfit(text)
    if scientific.fullmatch(text):
        return _INEXACT
    return _INEXACT if _FLOAT.fullmatch(text) and abs(int(without_decimals(text))) >= FIRST_UNSURE else None


def _unfit(text: str) -> _Fault:
    """Which characters of a text no id may have."""
    odd = dict.fromkeys(letter for letter in text if not letter.isprintable())
    names = [_CONTROL_NAMES.get(letter, f"U+{ord(letter):04X}") for letter in odd]
    if _QUOTATION.search(text):
        names.append("a quotation mark")
    return _Fault(
        "unfit-id",
        "an id that can be printed on one line, without quotation marks",
        "Correct the id in every table",
        "with " + ", ".join(dict.fromkeys(names)),
    )


def _refuse_texts(table: TableCells, column: str, *, defines: bool) -> None:
    """A problem for each row whose text is no id."""
    texts = table.columns[column].texts
    found = _judge_texts(table.columns[column], defines=defines)
    groups: dict[_Fault, set[str]] = {}
    for text, reason in found.items():
        if text and reason:
            groups.setdefault(reason, set()).add(text)
    for reason, members in groups.items():

        def say(row: int, what: str = reason.what) -> str:  # noqa: ARG001
            return what

        table.refuse(
            texts.isin(members).to_numpy(dtype=bool),
            column=column,
            rule=reason.rule,
            expected=reason.expected,
            remedy=reason.remedy,
            hint=say,
        )


def _refuse_fractions(table: TableCells, column: str, wrong: Bool[np.ndarray, " row"]) -> None:
    """One problem for the column: its type is the cause, whatever the rows."""
    cells = table.columns[column]
    rows = np.flatnonzero(wrong)
    expected = "whole numbers as ids"
    if cells.kind == "float":
        expected = f"whole numbers that {cells.type_name} tells apart (below {cells.first_unsure:,})"
    more = f" and {len(rows) - 1:,} more such ids" if len(rows) > 1 else ""
    detail = fault(
        expected=expected,
        got=quote(cells.shown(int(rows[0]))) + more,
        remedy="Write the ids as text or as int64, from where they still have all digits",
    )
    table.log.add(table.file, row=int(table.lines[rows[0]]), column=column, rule="inexact-id", detail=detail)
