"""A section of the report and what is in it."""

from pathlib import Path

from server.report.content import read_run
from server.report.page import WORDS_FILES, list_sections
from shared_model.pages.blocks import Block, Figure, Folded, Grid, Notice, Section, Table, Text, list_figures
from shared_model.pages.wording import Words

WORDS = Words(*WORDS_FILES)


def section_of(run: Path, name: str) -> Section:
    """A section of a run's report."""
    (section,) = (section for section in list_sections(read_run(run), WORDS) if section.name == name)
    return section


def _flat(blocks: tuple[Block, ...]) -> list[Block]:
    flat: list[Block] = []
    for block in blocks:
        flat.append(block)
        if isinstance(block, Folded):
            flat.extend(_flat(block.blocks))
        if isinstance(block, Grid):
            flat.extend(block.figures)
    return [*flat, *(block.table for block in flat if isinstance(block, Figure))]


def figure_of(section: Section, name: str) -> Figure:
    """A figure by its name."""
    (figure,) = (figure for figure in list_figures(section.blocks) if figure.name == name)
    return figure


def table_of(section: Section, name: str) -> Table:
    """A table by its name, also of a figure."""
    (table,) = (block for block in _flat(section.blocks) if isinstance(block, Table) and block.name == name)
    return table


def texts_of(section: Section) -> str:
    """All its sentences."""
    return " ".join(block.text for block in _flat(section.blocks) if isinstance(block, Text | Notice))
