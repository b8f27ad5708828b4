"""The table in which clinicians say what they hold to be important.

A CSV file, UTF-8, commas, one row per item:

    kind,modality,feature,rank,expert
    modality,vitals,,1,Dr A
    modality,static,,2,Dr A
    feature,vitals,hr_bpm last,1,Dr A

- `kind`: `modality` or `feature`; the two are ranked apart from each other, features over all modalities together.
- `modality`, `feature`: spelled as in explanations.json; `feature` is empty in a modality's row.
- Exactly one of `rank` (a number >= 1, 1 is the most important; equal numbers are ties, only the order counts) and
  `points` (a number >= 0, more is more important).
- `expert`: optional; a name in every row allows several experts in one file.

An item may be left out: it then counts as less important than those named.
"""

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from server.run_folder.explained_items import ExplainedItem
from shared_model.errors import DataError, Problem, StudyError

Scale = Literal["rank", "points"]
LOWEST: Mapping[Scale, float] = {"rank": 1.0, "points": 0.0}
NAMES, EXPERT = ("kind", "modality", "feature"), "expert"
ONLY_EXPERT = "expert"


@dataclass(frozen=True)
class ExpertTable:
    """What the experts said.

    Attributes:
        scale: how they said it.
        scores: by expert and item; larger is more important (a rank is negated).
    """

    scale: Scale
    scores: Mapping[str, Mapping[ExplainedItem, float]]


@dataclass(frozen=True)
class _Row:
    line: int
    cells: Mapping[str, str]


def read_expert_table(path: Path, *, names: Mapping[str, frozenset[str] | None]) -> ExpertTable:
    """The experts' table.

    Args:
        path: of the CSV file.
        names: features of every modality that may be named; None if they are not known, then any may.

    Raises:
        DataError: the table breaks its contract; carries every problem with its row.
        StudyError: the file cannot be read.
    """
    reader = _TableReader(path.name, names)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise StudyError(
            f"{path}: expected a CSV file, got: {error.strerror}. Give the experts' table to --expert."
        ) from error
    table = reader.read(raw)
    if reader.problems or table is None:
        raise DataError(reader.problems)
    return table


class _TableReader:
    """Reads one table and collects what is wrong with it."""

    def __init__(self, file: str, names: Mapping[str, frozenset[str] | None]) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._names = names

    def read(self, raw: bytes) -> ExpertTable | None:
        """The table; None if there is nothing to read. Worth something only without problems."""
        records = self._split(raw)
        if not records:
            return None
        header = [name.strip() for name in records[0][1]]
        scale = self._check_header(header)
        if not set(NAMES) <= set(header) or len(set(header)) < len(header):
            return None
        rows = list(self._rows(header, records[1:]))
        if len(records) == 1:
            self._add(0, "", "no-rows", expected="a row per item", got="none", remedy="Add the items.")
        scores: dict[str, dict[ExplainedItem, float]] = {}
        first_line: dict[tuple[str, ExplainedItem], int] = {}
        for row in rows:
            expert, item, value = self._expert(row), self._item(row), self._value(row, scale)
            if expert is None or item is None:
                continue
            line = first_line.setdefault((expert, item), row.line)
            if line != row.line:
                got, remedy = f"{str(item)!r} in row {line} too", "Delete one of the rows."
                self._add(row.line, "", "duplicate-row", expected="one row per item", got=got, remedy=remedy)
            if value is not None:
                scores.setdefault(expert, {})[item] = -value if scale == "rank" else value
        return ExpertTable(scale or "rank", scores)

    def _add(self, line: int, column: str, rule: str, *, expected: str, got: str, remedy: str) -> None:
        self.problems.append(Problem(self._file, line, column, rule, f"expected {expected}, got {got}. {remedy}"))

    def _split(self, raw: bytes) -> list[tuple[int, list[str]]]:
        """Line and cells of every record that is not empty."""
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line, got = raw[: error.start].count(b"\n") + 1, f"byte 0x{raw[error.start]:02x}"
            self._add(line, "", "not-utf-8", expected="UTF-8 text", got=got, remedy="Save it as CSV UTF-8.")
            return []
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        records, line = [], 1
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    records.append((line, cells))
                line = reader.line_num + 1  # a quoted cell may span lines: a record is where it starts
        except csv.Error as error:
            self._add(line, "", "malformed-csv", expected="well-formed CSV", got=str(error), remedy="Save it again.")
            return []
        if not records:
            self._add(0, "", "empty-file", expected="a header and rows", got="no text", remedy="Fill the table in.")
        return records

    def _check_header(self, header: list[str]) -> Scale | None:
        """The scale, if there is exactly one."""
        got = ", ".join(header)
        for name in NAMES:
            if name not in header:
                remedy = "Add it, and separate columns by commas."
                self._add(1, name, "missing-column", expected="this column", got=got, remedy=remedy)
        for name in dict.fromkeys(header):
            if header.count(name) > 1:
                self._add(1, name, "duplicate-column", expected="one", got=got, remedy="Rename or delete the others.")
            if name not in {*NAMES, *LOWEST, EXPERT}:
                allowed = ", ".join((*NAMES, "rank or points", EXPERT))
                self._add(1, name, "unknown-column", expected=allowed, got=repr(name), remedy="Delete or rename it.")
        scales: list[Scale] = [scale for scale in LOWEST if scale in header]
        if len(scales) == 1:
            return scales[0]
        got = "both" if scales else "neither"
        expected = "exactly one of the columns rank and points"
        self._add(1, "", "rank-or-points", expected=expected, got=got, remedy="Keep the one that was asked for.")
        return None

    def _rows(self, header: list[str], records: list[tuple[int, list[str]]]) -> Iterator[_Row]:
        for line, cells in records:
            if len(cells) == len(header):
                yield _Row(line, {name: cell.strip() for name, cell in zip(header, cells, strict=True)})
            else:
                expected, remedy = f"{len(header)} cells", "Quote cells that hold a comma."
                self._add(line, "", "row-length", expected=expected, got=str(len(cells)), remedy=remedy)

    def _expert(self, row: _Row) -> str | None:
        name = row.cells.get(EXPERT, ONLY_EXPERT)
        if not name:
            remedy = "Name the expert, or delete the column."
            self._add(row.line, EXPERT, "missing-value", expected="a name", got="an empty cell", remedy=remedy)
        return name or None

    def _item(self, row: _Row) -> ExplainedItem | None:
        kind, modality, feature = (row.cells[name] for name in NAMES)
        before = len(self.problems)
        if kind not in {"modality", "feature"}:
            remedy = "Write one of the two."
            self._add(row.line, "kind", "unknown-kind", expected="modality or feature", got=repr(kind), remedy=remedy)
        if modality not in self._names:
            self._add_unknown(row.line, "modality", modality, list(self._names))
        if kind == "modality" and feature:
            remedy = "Empty it, or set kind to feature."
            self._add(row.line, "feature", "not-empty", expected="an empty cell", got=repr(feature), remedy=remedy)
        if kind == "feature":
            known = self._names.get(modality)
            if not feature:
                remedy = "Name the feature, or set kind to modality."
                self._add(row.line, "feature", "missing-value", expected="a name", got="an empty cell", remedy=remedy)
            elif known is not None and feature not in known:
                self._add_unknown(row.line, "feature", feature, sorted(known))
        return ExplainedItem(modality, feature) if len(self.problems) == before else None

    def _add_unknown(self, line: int, column: str, got: str, known: list[str]) -> None:
        close = get_close_matches(got, known) or (known if len(known) <= 8 else [])
        remedy = "Spell it as explanations.json does" + (f": {', '.join(close)}." if close else ".")
        self._add(line, column, f"unknown-{column}", expected=f"a {column} of the run", got=repr(got), remedy=remedy)

    def _value(self, row: _Row, scale: Scale | None) -> float | None:
        if scale is None:
            return None
        text, expected, remedy = row.cells[scale], f"a number >= {LOWEST[scale]:g}", "Write a plain number."
        if not text:
            remedy = "Fill it in, or delete the row."
            self._add(row.line, scale, "missing-value", expected=expected, got="an empty cell", remedy=remedy)
            return None
        try:
            value = float(text.replace("_", "?"))  # Python's own 1_000 is no number in a table
        except ValueError:
            value = math.nan
        if math.isfinite(value) and value >= LOWEST[scale]:
            return value
        rule = "out-of-range" if math.isfinite(value) else "not-a-number"
        self._add(row.line, scale, rule, expected=expected, got=repr(text), remedy=remedy)
        return None
