"""A table on the screen of which nothing is ever cut: rich cuts what does not fit into a narrow terminal."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console

GAP = "  "


def print_table(console: Console, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their headings; on a terminal that is too narrow, each row as a block of its cells by name.

    Args:
        console: where to; what is no terminal, such as a pipe, takes lines of any length.
        headings: of the columns.
        rows: as many cells each as there are headings, or fewer; the first cell names the row.
    """
    widths = [max(cell_len(row[i]) if i < len(row) else 0 for row in (headings, *rows)) for i in range(len(headings))]
    if not console.is_terminal or sum(widths) + len(GAP) * (len(widths) - 1) <= console.width:
        lines = [_align(row, widths) for row in (headings, *rows)]
    else:
        lines = [line for row in rows for line in _block(headings, row, width=console.width)]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _align(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=False))
    return GAP.join(cells).rstrip()


def _block(headings: Sequence[str], row: Sequence[str], *, width: int) -> list[str]:
    """The row's name, and below it its other cells, as many to a line as fit."""
    lines, line = [row[0]], ""
    for heading, cell in zip(headings[1:], row[1:], strict=False):
        if not cell:
            continue
        told = f"{heading} {cell}".strip()
        if line and cell_len(f"{line}, {told}") > width:
            lines.append(f"{line},")
            line = ""
        line = f"{line}, {told}" if line else f"{GAP}{told}"
    return [*lines, line] if line else lines
