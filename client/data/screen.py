"""Show a check's outcome on the hospital's own screen: every problem, or a summary of what was read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from client.data.hospital import Notes
from client.data.problems import quote
from client.data.summary import HospitalSummary, ModalitySummary
from client.data.variable_summary import VariableSummary
from shared_model.errors import DataError, Problem, describe_problems


@contextmanager
def problems_listed(name: str) -> Iterator[None]:
    """Print every problem of a folder that is refused within, and exit with 1.

    Args:
        name: of the hospital.
    """
    try:
        yield
    except DataError as error:
        print_problems(Console(stderr=True), name, error.problems)
        raise typer.Exit(1) from error


def print_problems(console: Console, name: str, problems: Sequence[Problem]) -> None:
    """A line for each problem, or for many of one kind, unbroken and unstyled so that it can be searched and copied."""
    total = sum(problem.rows for problem in problems)
    console.print(Text(f"{name}: {total:,} problem{'' if total == 1 else 's'}", style="bold red"))
    for line in describe_problems(problems):
        console.print(Text(f"  {line}"), soft_wrap=True)


def print_summary(console: Console, name: str, summary: HospitalSummary, notes: Notes) -> None:
    """What a hospital has, a table for each modality, and what was left aside."""
    console.print(Text(f"{name}: {summary.patients} patients, {summary.events} events", style="bold green"))
    for modality in summary.modalities:
        _print_modality(console, modality, n_patients=summary.patients)
    print_notes(console, _lines(notes))


def print_notes(console: Console, notes: Sequence[str]) -> None:
    """What a hospital may want to know though it breaks no rule, a line each."""
    for note in notes:
        console.print(Text(f"  note: {note}", style="yellow"), soft_wrap=True)


def _print_modality(console: Console, modality: ModalitySummary, *, n_patients: int) -> None:
    where = f"  {modality.name} ({modality.kind}): present for {modality.present} of {n_patients} patients"
    console.print(Text(f"{where}, {modality.events} events among them"))
    if not modality.present:
        return
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column("    variable", no_wrap=True)
    for title in ("missing", "p5", "median", "p95"):
        grid.add_column(title, justify="right", no_wrap=True)
    grid.add_column("patients", overflow="fold")
    for variable in modality.variables:
        grid.add_row(*_cells(variable))
    console.print(grid)


def _cells(variable: VariableSummary) -> list[Text]:
    quantiles = ["", "", ""] if variable.quantiles is None else [f"{value:.4g}" for value in variable.quantiles]
    unit = f" [{variable.unit}]" if variable.unit else ""
    counts = ", ".join(f"{level}: {n}" for level, n in variable.counts.items())
    return [Text(cell) for cell in (f"    {variable.name}{unit}", str(variable.missing), *quantiles, counts)]


def _lines(notes: Notes) -> list[str]:
    lines = [
        f"{table}: columns not used: {', '.join(map(quote, columns))}"
        for table, columns in notes.ignored_columns.items()
    ]
    if notes.ignored_tables:
        lines.append(f"tables that the schema does not name: {', '.join(map(quote, notes.ignored_tables))}")
    lines += [f"{table}: a header and no rows" for table in notes.empty_tables]
    if notes.shared_images:
        lines.append(f"images named by more than one row: {', '.join(map(quote, notes.shared_images[:10]))}")
    if notes.unnamed_images:
        named = ", ".join(map(quote, notes.unnamed_images[:10]))
        lines.append(f"images that do not call themselves X-rays (Modality OT, SC): {named}")
    return lines
