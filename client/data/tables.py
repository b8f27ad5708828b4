"""Find and read one table, CSV or Parquet: the cells of the wanted columns and the line number of every row."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Int64

from client.data.causes import cell_cause
from client.data.cells import ColumnCells, Content, arrow_cells
from client.data.csv_table import read_csv
from client.data.likely_names import advise_column, advise_file, misnamed_files
from client.data.problems import ProblemLog, fault, quote
from shared_model.plain_text import plain_text

SUFFIXES = (".csv", ".parquet")


def _no_hint(row: int) -> str:  # noqa: ARG001
    return ""


@dataclass(frozen=True)
class TableCells:
    """Cells of the wanted columns of one table.

    Attributes:
        file: path relative to the hospital's folder.
        lines: line of each row as an editor shows it; the header is line 1 (for Parquet: data row + 1).
        columns: the cells of each; a wanted column that the file lacks is absent here, and already reported.
        ignored: columns of the file that nobody asked for.
        complete: whether every row of the file is here; False if malformed rows were dropped (and reported).
        log: where the problems of this table go.
    """

    file: str
    lines: Int64[np.ndarray, " row"]
    columns: Mapping[str, ColumnCells]
    ignored: tuple[str, ...]
    complete: bool
    log: ProblemLog

    def __len__(self) -> int:
        return len(self.lines)

    def __contains__(self, column: str) -> bool:
        return column in self.columns

    def refuse(
        self,
        wrong: Bool[np.ndarray, " row"],
        *,
        column: str,
        rule: str,
        expected: str,
        remedy: str,
        hint: Callable[[int], str] = _no_hint,
    ) -> None:
        """Record a problem for each row where `wrong`, quoting the cell.

        Args:
            wrong: which rows.
            column: where they are wrong.
            rule: name of the rule that they break.
            expected: what the rule asks for.
            remedy: what to do.
            hint: what is known of the cell of a row, besides its text.
        """
        rows = np.flatnonzero(wrong)
        if not len(rows):
            return
        cells = self.columns[column]

        def describe(row: int) -> str:
            shown = cells.shown(row)
            marker = cell_cause(plain_text(shown))
            known = hint(row) or (marker.what if marker else "")
            got = quote(shown) if shown else "nothing"
            return fault(expected=expected, got=f"{got} ({known})" if known else got, remedy=remedy)

        faults = ((int(self.lines[row]), describe(row)) for row in map(int, rows))
        self.log.add_rows(self.file, rule=rule, column=column, faults=faults, total=len(rows))

    def refuse_type(self, column: str, *, expected: str, remedy: str, got: str = "") -> None:
        """Record one problem for a column whose type cannot be what is wanted.

        Args:
            column: its name.
            expected: what the rule asks for.
            remedy: what to do.
            got: what the column holds, where the type's name does not tell.
        """
        got = got or f"a column of type {self.columns[column].type_name}"
        detail = fault(expected=expected, got=got, remedy=remedy)
        self.log.add(self.file, row=1, column=column, rule="wrong-type", detail=detail)


def candidates(folder: Path, name: str) -> list[Path]:
    """The files that hold table `name`: none, one, or (a fault) both `name.csv` and `name.parquet`."""
    return [path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()]


def find_table(folder: Path, name: str, *, log: ProblemLog) -> Path | None:
    """The one file of table `name`; None if the hospital has none.

    None, too, where it has two, a link out of the folder, or one under another name: this is reported.
    """
    paths = candidates(folder, name)
    misnamed = [] if paths else misnamed_files(folder, name)
    if misnamed:
        detail = fault(
            expected=f"{name}.csv or {name}.parquet",
            got=" and ".join(map(quote, misnamed)),
            remedy=advise_file(misnamed[0], name),
        )
        log.add(quote(misnamed[0])[1:-1], rule="misnamed-table", detail=detail)
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
    """True if a file is a link to one outside its folder."""
    return not path.resolve().is_relative_to(path.parent.resolve())


def read_table(
    path: Path, *, wanted: Sequence[str], log: ProblemLog, optional: Sequence[str] = ()
) -> TableCells | None:
    """The wanted columns of a table.

    Args:
        path: a .csv (UTF-8, commas, a header) or .parquet file.
        wanted: columns that must be there.
        log: receives every fault of form: encoding, delimiter, ragged rows, duplicate or missing columns; and a note
            if there is a header only.
        optional: columns that are read where the file has them.

    Returns:
        The table, or None where its form is so broken that no cell can be trusted (reported).
    """
    named = [*wanted, *optional]
    try:
        content = _read_parquet(path, log=log) if path.suffix == ".parquet" else read_csv(path, wanted=named, log=log)
    except OSError as error:
        detail = fault(expected="a readable file", got=error.strerror or "an error", remedy="Check its permissions")
        log.add(path.name, rule="unreadable-file", detail=detail)
        return None
    if content is None:
        return None
    if content.complete and not len(content.lines):
        log.note_empty(path.name)
    counts = Counter(content.header)
    for name in wanted:
        if not counts[name]:
            remedy = advise_column(name, content.header, wanted=wanted)
            detail = fault(expected=f"a column {name}", got="none", remedy=remedy)
            log.add(path.name, row=1, column=name, rule="missing-column", detail=detail)
    for name, n in counts.items():
        if n > 1 and name:
            detail = fault(expected="each column once", got=f"it {n} times", remedy="Rename or remove the others")
            log.add(path.name, row=1, column=quote(name)[1:-1], rule="duplicate-column", detail=detail)
    return TableCells(
        file=path.name,
        lines=content.lines,
        columns={name: content.column(content.header.index(name)) for name in named if counts[name] == 1},
        ignored=tuple(name for name in content.header if name and name not in named),
        complete=content.complete,
        log=log,
    )


def _read_parquet(path: Path, *, log: ProblemLog) -> Content | None:
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        got = str(error).splitlines()[0] if str(error) else "an error"
        detail = fault(expected="a Parquet file", got=got, remedy="Export it again")
        log.add(path.name, rule="unreadable-file", detail=detail)
        return None
    return Content(
        header=[plain_text(name) for name in table.column_names],
        lines=np.arange(2, table.num_rows + 2, dtype=np.int64),
        column=lambda position: arrow_cells(table.column(position)),
    )
