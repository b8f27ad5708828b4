"""A user's mistake ends with one message and exit status 1, not with a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from shared_model.errors import HipfedError


@contextmanager
def said_plainly() -> Iterator[None]:
    """Turn what hipfed refuses into a message and an exit status."""
    try:
        yield
    except HipfedError as error:
        Console(stderr=True).print(f"hipfed-sim: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(1) from error
