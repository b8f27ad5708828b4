"""`hipfed-server`: what the coordinator runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from server.summary import print_run
from shared_model.errors import HipfedError

app = typer.Typer(name="hipfed-server", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """The coordinator of a federated study. It holds no patient data. Research use only."""


@app.command()
def show(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]) -> None:
    """Say how a run stands: its state, the hospitals that were excluded, and its metrics."""
    try:
        print_run(run, Console())
    except HipfedError as error:
        Console(stderr=True).print(f"hipfed-server: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(1) from error
