"""The blocks of a page: sections of text, notices, tables and figures, and parts that are folded away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

Mark = Literal["good", "amber", "red", "unknown"]


@dataclass(frozen=True)
class Tile:
    """A number with what it is.

    Attributes:
        label: what it is.
        value: the number, or words in its place.
        note: the sentence below it.
        beside: the number's interval.
        in_words: the value is words, not a number.
        wide: it takes the room of two.
    """

    label: str
    value: str
    note: str = ""
    beside: str = ""
    in_words: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Marked:
    """A word with a symbol and a colour; the word alone says it all.

    Attributes:
        text: the word.
        mark: how it is shown.
    """

    text: str
    mark: Mark


Cell = str | int | float | Marked | None


@dataclass(frozen=True)
class Table:
    """Columns and rows; a number is shown, and exported, with four significant digits.

    Attributes:
        caption: what it holds.
        columns: headings, with units.
        rows: one cell a column each; the first names the row.
        name: of the exported file, without an ending.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    name: str
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Figure:
    """A figure for plotly, with a text and a table that say the same.

    Attributes:
        name: its id in the page, and of the exported files.
        title: its heading.
        alt: what one would see, in a sentence or two.
        caption: how to read it.
        data: plotly's traces; `var(--name)` is a colour of the theme.
        layout: plotly's layout.
        table: the numbers.
        height: in pixels.
    """

    name: str
    title: str
    alt: str
    caption: str
    data: Sequence[Mapping[str, object]]
    layout: Mapping[str, object]
    table: Table
    height: int = 340
    kind: ClassVar[str] = "figure"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Notice:
    """A paragraph that must not be missed."""

    text: str
    kind: ClassVar[str] = "notice"


@dataclass(frozen=True)
class BulletPoints:
    """A list of sentences."""

    items: tuple[str, ...]
    kind: ClassVar[str] = "points"


@dataclass(frozen=True)
class Grid:
    """Figures side by side where there is room."""

    figures: tuple[Figure, ...]
    kind: ClassVar[str] = "grid"


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str
    kind: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Folded:
    """Blocks behind a line that opens them."""

    summary: str
    blocks: tuple[Block, ...] = field(default=())
    kind: ClassVar[str] = "folded"


@dataclass(frozen=True)
class Own:
    """What only one page has: a template of that page, to which this is `block`.

    Attributes:
        template: its name.
        content: what it shows.
    """

    template: str
    content: object
    kind: ClassVar[str] = "own"


Block = Text | Notice | BulletPoints | Heading | Table | Figure | Grid | Folded | Own


@dataclass(frozen=True)
class Section:
    """A part of a page that the contents list.

    Attributes:
        name: its id in the page.
        title: its heading.
        blocks: from top to bottom.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]


def list_figures(blocks: Sequence[Block]) -> list[Figure]:
    """All figures in blocks, also in grids and folded parts."""
    found: list[Figure] = []
    for block in blocks:
        if isinstance(block, Figure):
            found.append(block)
        elif isinstance(block, Grid):
            found.extend(block.figures)
        elif isinstance(block, Folded):
            found.extend(list_figures(block.blocks))
    return found
