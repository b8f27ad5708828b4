"""Read one table, CSV or Parquet, as an editor shows it: raw cells and the line number of every row.

Why not `pandas.read_csv`: it renames duplicate columns, pads short rows, stops at the first long row and loses the
line numbers where a quoted cell spans lines. All of these are faults that a hospital must be told about.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Int64

from client.data.problems import ProblemLog, fault, quote

SUFFIXES = (".csv", ".parquet")
_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_SAVE_AGAIN = "Save it again as CSV UTF-8 with commas"


@dataclass(frozen=True)
class Table:
    """Raw cells of the wanted columns of one table.

    Attributes:
        file: path relative to the hospital's folder.
        lines: line of each row as an editor shows it; the header is line 1 (for Parquet: data row + 1).
        columns: text cells ("" = missing, not stripped), or floating-point values (NaN = missing) from Parquet. A
            wanted column that the file lacks is absent here, and already reported.
        ignored: columns of the file that nobody asked for.
        complete: whether every row of the file is here; False if malformed rows were dropped (and reported).
        log: where the problems of this table go.
    """

    file: str
    lines: Int64[np.ndarray, " row"]
    columns: Mapping[str, pd.Series]
    ignored: tuple[str, ...]
    complete: bool
    log: ProblemLog

    def __len__(self) -> int:
        return len(self.lines)

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def refuse(self, wrong: Bool[np.ndarray, " row"], *, column: str, rule: str, expected: str, remedy: str) -> None:
        """Record a problem for each row where `wrong`, quoting the raw cell."""
        rows = np.flatnonzero(wrong)
        if not len(rows):
            return
        cells = self.columns[column]
        self.log.add_rows(
            self.file,
            rule=rule,
            column=column,
            faults=(
                (int(self.lines[row]), fault(expected=expected, got=_shown(cells.iloc[row]), remedy=remedy))
                for row in rows
            ),
            total=len(rows),
        )


def _shown(cell: object) -> str:
    if cell == "" or (isinstance(cell, float) and np.isnan(cell)):
        return "nothing"
    return quote(cell)


@dataclass(frozen=True)
class _Content:
    header: list[str]
    lines: Int64[np.ndarray, " row"]
    column: Callable[[int], pd.Series]  # by position in the header
    complete: bool = True


def candidates(folder: Path, name: str) -> list[Path]:
    """The files that hold table `name`: none, one, or (a fault) both `name.csv` and `name.parquet`."""
    return [path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()]


def find_table(folder: Path, name: str, *, log: ProblemLog) -> Path | None:
    """The one file of table `name`; None if the hospital has none or, reported, has two or a link out of the folder."""
    paths = candidates(folder, name)
    if len(paths) > 1:
        detail = fault(
            expected=f"one table {name}",
            got=" and ".join(path.name for path in paths),
            remedy="Remove the outdated one",
        )
        log.add(paths[0].name, rule="two-files", detail=detail)
        return None
    if paths and leaves_folder(paths[0]):
        remedy = "Copy the file into the folder in place of the link"
        detail = fault(expected="a file inside the hospital's folder", got="a link out of it", remedy=remedy)
        log.add(paths[0].name, rule="path-leaves-folder", detail=detail)
        return None
    return paths[0] if paths else None


def leaves_folder(path: Path) -> bool:
    """Whether a file is a link to one outside its folder."""
    return not path.resolve().is_relative_to(path.parent.resolve())


def read_table(path: Path, *, wanted: Sequence[str], log: ProblemLog) -> Table | None:
    """The wanted columns of a table.

    Args:
        path: a .csv (UTF-8, commas, a header) or .parquet file.
        wanted: columns that must be there.
        log: receives every fault of form: encoding, delimiter, ragged rows, duplicate or missing columns; and a note
            if there is a header only.

    Returns:
        The table, or None where its form is so broken that no cell can be trusted (reported).
    """
    try:
        content = _read_parquet(path, log=log) if path.suffix == ".parquet" else _read_csv(path, log=log)
    except OSError as error:
        detail = fault(expected="a readable file", got=error.strerror or "an error", remedy="Check its permissions")
        log.add(path.name, rule="unreadable-file", detail=detail)
        return None
    if content is None or _has_wrong_delimiter(path, content.header, wanted, log=log):
        return None
    if content.complete and not len(content.lines):
        log.note_empty(path.name)
    counts = Counter(content.header)
    for name in wanted:
        if not counts[name]:
            _report_missing(path, name, content.header, log=log)
    for name, n in counts.items():
        if n > 1 and name:
            detail = fault(expected="each column once", got=f"it {n} times", remedy="Rename or remove the others")
            log.add(path.name, row=1, column=quote(name)[1:-1], rule="duplicate-column", detail=detail)
    return Table(
        file=path.name,
        lines=content.lines,
        columns={name: content.column(content.header.index(name)) for name in wanted if counts[name] == 1},
        ignored=tuple(name for name in content.header if name and name not in wanted),
        complete=content.complete,
        log=log,
    )


def _has_wrong_delimiter(path: Path, header: Sequence[str], wanted: Sequence[str], *, log: ProblemLog) -> bool:
    if len(header) != 1 or header[0] in wanted:
        return False
    names = [name for mark, name in _OTHER_DELIMITERS.items() if mark in header[0]]
    if not names:
        return False
    detail = fault(
        expected="columns separated by commas",
        got=f"one column whose name holds {' and '.join(names)}",
        remedy=_SAVE_AGAIN,
    )
    log.add(path.name, row=1, rule="wrong-delimiter", detail=detail)
    return True


def _report_missing(path: Path, name: str, header: Sequence[str], *, log: ProblemLog) -> None:
    folded = {other.casefold(): other for other in header}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.75)
    hint = f"Rename column {quote(folded[close[0]])}" if close else "Add it, with empty cells where nothing is known"
    log.add(
        path.name,
        row=1,
        column=name,
        rule="missing-column",
        detail=fault(expected=f"a column {name}", got="none", remedy=hint),
    )


def _read_csv(path: Path, *, log: ProblemLog) -> _Content | None:
    text = _decode(path.name, path.read_bytes(), log=log)
    return None if text is None else _parse(path.name, text, log=log)


def _decode(file: str, raw: bytes, *, log: ProblemLog) -> str | None:
    if not raw.strip():
        log.add(
            file, rule="empty-file", detail=fault(expected="a header and rows", got="no text", remedy="Export it again")
        )
        return None
    nul = raw.find(b"\0")
    if nul >= 0:
        got = "UTF-16 text" if raw.startswith(_UTF16_MARKS) else "a NUL byte"
        detail = fault(expected="UTF-8 text", got=got, remedy=_SAVE_AGAIN)
        log.add(file, row=_line_of(raw, nul), rule="nul-byte", detail=detail)
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        detail = fault(expected="UTF-8 text", got=f"byte 0x{raw[error.start]:02x}", remedy=_SAVE_AGAIN)
        log.add(file, row=_line_of(raw, error.start), rule="not-utf-8", detail=detail)
        return None


def _line_of(raw: bytes, position: int) -> int:
    before = raw[:position]
    return before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n") + 1


def _parse(file: str, text: str, *, log: ProblemLog) -> _Content | None:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    starts: list[int] = []
    start = 1
    try:
        for row in reader:
            if row:  # an empty line is no row
                rows.append(row)
                starts.append(start)
            start = reader.line_num + 1  # a quoted cell may span lines: a row is where it starts
    except csv.Error as error:
        detail = fault(
            expected="well-formed CSV", got=str(error), remedy="Close the quotation mark that this row opens"
        )
        log.add(file, row=start, rule="malformed-csv", detail=detail)
        return None
    header = [name.strip() for name in rows[0]]
    widths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    lines = np.asarray(starts, dtype=np.int64)
    whole = widths == len(header)
    ragged = np.flatnonzero(~whole)
    if len(ragged):
        log.add_rows(
            file,
            rule="row-length",
            column="",
            faults=((int(lines[row]), _ragged(int(widths[row]), len(header))) for row in ragged),
            total=len(ragged),
        )
        rows = [row for row, good in zip(rows, whole, strict=True) if good]
    body = rows[1:]
    return _Content(
        header=header,
        lines=lines[whole][1:],
        column=lambda position: pd.Series([row[position] for row in body], dtype="str"),
        complete=not len(ragged),
    )


def _ragged(width: int, expected: int) -> str:
    remedy = "Quote cells that hold a comma" if width > expected else "Write a comma for each empty cell too"
    return fault(expected=f"{expected} cells as in the header", got=f"{width}", remedy=remedy)


def _read_parquet(path: Path, *, log: ProblemLog) -> _Content | None:
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        got = str(error).splitlines()[0] if str(error) else "an error"
        detail = fault(expected="a Parquet file", got=got, remedy="Export it again")
        log.add(path.name, rule="unreadable-file", detail=detail)
        return None
    return _Content(
        header=[name.strip() for name in table.column_names],
        lines=np.arange(2, table.num_rows + 2, dtype=np.int64),
        column=lambda position: _plain(table.column(position)),
    )


def _plain(cells: pa.ChunkedArray) -> pd.Series:
    """Floating-point cells as float64 (NaN = missing), any other type as text ("" = missing), as CSV would hold it."""
    if pa.types.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    if pa.types.is_boolean(cells.type):
        cells = cells.cast(pa.int8())
    if pa.types.is_floating(cells.type) or pa.types.is_decimal(cells.type):
        values = cells.cast(pa.float64()).to_numpy(zero_copy_only=False) if len(cells) else np.empty(0)
        return pd.Series(np.asarray(values, dtype=np.float64))
    try:
        texts = cells.cast(pa.string()).to_pylist()
    except pa.ArrowException:  # nested types have no text form of their own
        texts = [None if cell is None else str(cell) for cell in cells.to_pylist()]
    return pd.Series(["" if text is None else text for text in texts], dtype="str")
