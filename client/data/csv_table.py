"""Read a CSV as an editor shows it, or say in one sentence why it is none.

Why not `pandas.read_csv`: it renames duplicate columns, pads short rows, stops at the first long row and loses the
line numbers where a quoted cell spans lines. All of these are faults that a hospital must be told about.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from client.data.asides import find_aside
from client.data.causes import NUMBER
from client.data.cells import Content, text_cells
from client.data.problems import ProblemLog, fault, quote
from shared_model.plain_text import plain_text

_COMMA = ","
_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_SAVE_AGAIN = "Save it again as CSV UTF-8 with commas"
_OTHER_FORMATS = {
    b"PK\x03\x04": "an Excel workbook (or another ZIP file)",
    b"\xd0\xcf\x11\xe0": "an Excel workbook of the old kind",
    b"PAR1": "a Parquet file; name it .parquet",
    b"\x1f\x8b": "a file compressed with gzip",
    b"%PDF": "a PDF",
    b"SAS ": "a SAS file",
    b"$FL2": "an SPSS file",
    b"<": "HTML or XML, as some programs write for Excel",
    b"{": "JSON",
    b"[{": "JSON",
}
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[\s,;]*', re.IGNORECASE)
_COMMENT = re.compile(r"(?:#|//|--|/\*)\s")
_SEARCHED_LINES = 40  # a title and notes stand above the header, not a table


def read_csv(path: Path, *, wanted: Sequence[str], log: ProblemLog) -> Content | None:
    """The columns of a CSV; None where no cell can be trusted (reported).

    Args:
        path: the file.
        wanted: columns that must be there; the header is found by them.
        log: receives every fault of form.

    Raises:
        OSError: it cannot be read.
    """
    text = _decode(path.name, path.read_bytes(), log=log)
    if text is None:
        return None
    start = _find_header(path.name, text, wanted, log=log)
    return None if start is None else _parse(path.name, text, start, log=log)


def _decode(file: str, raw: bytes, *, log: ProblemLog) -> str | None:
    content = raw.removeprefix(b"\xef\xbb\xbf").strip()
    if not content:
        log.add(
            file, rule="empty-file", detail=fault(expected="a header and rows", got="no text", remedy="Export it again")
        )
        return None
    other = next((name for start, name in _OTHER_FORMATS.items() if content.startswith(start)), None)
    if other is not None:
        log.add(file, row=1, rule="not-csv", detail=fault(expected="CSV text", got=other, remedy=_SAVE_AGAIN))
        return None
    nul = raw.find(b"\0")
    if nul >= 0:
        got = "UTF-16 text" if raw.startswith(_UTF16_MARKS) or raw[1::2].count(0) > len(raw) // 4 else "a NUL byte"
        detail = fault(expected="UTF-8 text", got=got, remedy=_SAVE_AGAIN)
        log.add(file, row=_line_of(raw, nul), rule="nul-byte", detail=detail)
        return None
    try:
        return raw.decode().replace("\ufeff", "").rstrip("\x1a")  # a mark per joined file; DOS's mark of a file's end
    except UnicodeDecodeError as error:
        got = f"byte 0x{raw[error.start]:02x}, as in Latin-1 or Windows-1252 (there {_in_windows(raw, error.start)})"
        detail = fault(expected="UTF-8 text", got=got, remedy=_SAVE_AGAIN)
        log.add(file, row=_line_of(raw, error.start), rule="not-utf-8", detail=detail)
        return None


def _in_windows(raw: bytes, position: int) -> str:
    return quote(raw[position : position + 1].decode("cp1252", errors="replace"))


def _line_of(raw: bytes, position: int) -> int:
    before = raw[:position]
    return before.count(b"\n") + before.count(b"\r") - before.count(b"\r\n") + 1


@dataclass(frozen=True)
class _Start:
    """Where the table begins: line of its header, from 0, and what separates its columns."""

    line: int
    delimiter: str


def _find_header(file: str, text: str, wanted: Sequence[str], *, log: ProblemLog) -> _Start | None:
    """The header, found by the wanted columns; what stands above it and another delimiter are reported once.

    None where there is no header, or none that can be told from data (reported).
    """
    lines = _first_lines(text)
    first = next(number for number, line in enumerate(lines) if line.strip())
    skipped = _SEPARATOR_LINE.fullmatch(lines[first])
    if skipped:
        first = next((number for number, line in enumerate(lines) if number > first and line.strip()), first)
    start = _best_start(lines, first, wanted) or _Start(first, _likely_delimiter(lines[first:]))
    if len(_split(lines[start.line], start.delimiter)) == 1:
        start = _Start(start.line, _likely_delimiter(lines[start.line + 1 :]))
    if start.delimiter != _COMMA:
        got = _DELIMITERS[start.delimiter]
        detail = fault(expected="columns separated by commas", got=got, remedy=_SAVE_AGAIN)
        log.add(file, row=start.line + 1, rule="wrong-delimiter", detail=detail)
    if start.line > first:
        got = f"{quote(lines[first].strip())}; the header is in row {start.line + 1}"
        detail = fault(expected="the header in row 1", got=got, remedy="Remove what stands above it")
        log.add(file, row=first + 1, rule="text-above-header", detail=detail)
    elif _is_data(_split(lines[first], start.delimiter), wanted):
        named = ", ".join(wanted)
        detail = fault(
            expected=f"a header with {named}",
            got=f"a row of data ({quote(lines[first])})",
            remedy="Export it with names",
        )
        log.add(file, row=first + 1, rule="no-header", detail=detail)
        return None
    return start


def _first_lines(text: str) -> list[str]:
    lines = io.StringIO(text, newline=None)
    return [line.rstrip("\n") for line, _ in zip(lines, range(_SEARCHED_LINES), strict=False)] if text else []


def _best_start(lines: Sequence[str], first: int, wanted: Sequence[str]) -> _Start | None:
    """The first line with a wanted column, else the later one with most of them; a comma where that is no worse."""
    starts = [_Start(number, mark) for number in range(first, len(lines)) for mark in (_COMMA, *_DELIMITERS)]
    hits = {start: _hits(_split(lines[start.line], start.delimiter), wanted) for start in starts}
    here = [start for start in starts if start.line == first and hits[start]]
    below = [start for start in starts if hits[start] >= min(2, len(wanted))]
    return max(here or below, key=lambda start: hits[start], default=None)  # the first of equals


def _hits(cells: Sequence[str], wanted: Sequence[str]) -> int:
    return len({cell.casefold() for cell in cells} & {name.casefold() for name in wanted})


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return [plain_text(cell) for cell in next(csv.reader([line], delimiter=delimiter, strict=True), [])]
    except csv.Error:
        return []


def _likely_delimiter(lines: Sequence[str]) -> str:
    """The comma, unless no line has one and every line has another mark."""
    filled = [line for line in lines if line.strip()]
    if any(_COMMA in line for line in filled[:1]):
        return _COMMA
    return next((mark for mark in _DELIMITERS if all(mark in line for line in filled)), _COMMA)


def _is_data(cells: Sequence[str], wanted: Sequence[str]) -> bool:
    """True if what should be a header is a row of data: as wide as one, no name of it, and numbers in it."""
    return len(cells) > 1 and not _hits(cells, wanted) and any(re.fullmatch(NUMBER, cell) for cell in cells)


def _parse(file: str, text: str, start: _Start, *, log: ProblemLog) -> Content | None:
    ends = (match.end() for match in re.finditer(r"\r\n|\r|\n", text))
    begin = next(islice(ends, start.line - 1, None)) if start.line else 0
    reader = csv.reader(io.StringIO(text[begin:], newline=""), delimiter=start.delimiter, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    line = start.line + 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):  # an empty line is no row, nor is one of commas alone
                rows.append(row)
                lines.append(line)
            line = start.line + reader.line_num + 1  # a quoted cell may span lines: a row is where it starts
    except csv.Error as error:
        detail = fault(
            expected="well-formed CSV", got=str(error), remedy="Close the quotation mark that this row opens"
        )
        log.add(file, row=line, rule="malformed-csv", detail=detail)
        return None
    return _content(file, rows, np.asarray(lines, dtype=np.int64), log=log)


def _content(file: str, rows: list[list[str]], lines: Int64[np.ndarray, " line"], *, log: ProblemLog) -> Content:
    header = [plain_text(name) for name in rows[0]]
    asides = _refuse_asides(file, rows, lines, log=log)
    rows = [row for number, row in enumerate(rows) if number not in asides]
    lines = np.delete(lines, sorted(asides))
    whole = _refuse_ragged(file, rows, lines, log=log)
    whole[0] = False
    names, in_order = set(header), sorted(header)
    for number in np.flatnonzero(whole):
        row = rows[number]
        if plain_text(row[0]) in names and sorted(map(plain_text, row)) == in_order:
            remedy = "Remove the row; if files were joined, check that their columns have the same order"
            detail = fault(expected="one header", got="a second one", remedy=remedy)
            log.add(file, row=int(lines[number]), rule="repeated-header", detail=detail)
            whole[number] = False
    body = [rows[number] for number in np.flatnonzero(whole)]
    return Content(
        header=header,
        lines=lines[whole],
        column=lambda position: text_cells([row[position] for row in body]),
        complete=len(body) == len(rows) - 1,
    )


def _refuse_asides(file: str, rows: list[list[str]], lines: Int64[np.ndarray, " line"], *, log: ProblemLog) -> set[int]:
    """Rows of another width than the header's that are no data, each reported: a total, a comment, a footer."""
    found: set[int] = set()
    for number, row in enumerate(rows):
        if len(row) == len(rows[0]):
            continue
        filled = [plain_text(cell) for cell in row if cell.strip()]
        is_comment = bool(_COMMENT.match(filled[0]))  # with commas, perhaps
        cause = find_aside(filled[0], alone=len(filled) == 1 or is_comment)
        if cause is not None:
            got = f"{quote(filled[0])} ({cause.what})"
            detail = fault(expected="a row of the table", got=got, remedy=cause.remedy)
            log.add(file, row=int(lines[number]), rule=cause.rule, detail=detail)
            found.add(number)
    return found


def _refuse_ragged(
    file: str, rows: list[list[str]], lines: Int64[np.ndarray, " line"], *, log: ProblemLog
) -> Bool[np.ndarray, " line"]:
    """Which rows are as wide as the header; the others are reported, once where all are wrong in the same way."""
    widths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    width = int(widths[0])
    ragged = np.flatnonzero(widths != width)
    if len(ragged) == len(rows) - 1 > 1 and len(set(widths[1:])) == 1:
        remedy = "Check whether a column has no name, or decimals have a comma"
        detail = fault(expected=f"{width} cells as in the header", got=f"{widths[1]} in every row", remedy=remedy)
        log.add(file, row=int(lines[1]), rule="row-length", detail=detail)
    elif len(ragged):
        log.add_rows(
            file,
            rule="row-length",
            column="",
            faults=((int(lines[row]), _ragged(rows[row], width)) for row in ragged),
            total=len(ragged),
        )
    return np.asarray(widths == width)


def _ragged(row: list[str], expected: int) -> str:
    filled = [cell for cell in row if cell.strip()]
    if len(filled) == 1:
        remedy = "Remove the row if it is a note, else write a comma for each empty cell too"
        return fault(
            expected=f"{expected} cells as in the header", got=f"{len(row)} ({quote(filled[0])})", remedy=remedy
        )
    longer = "Quote cells that hold a comma, and write decimals with a point"
    remedy = longer if len(row) > expected else "Write a comma for each empty cell too"
    return fault(expected=f"{expected} cells as in the header", got=f"{len(row)}", remedy=remedy)
