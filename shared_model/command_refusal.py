"""How a command ends that hipfed refuses: one plain text and exit status 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from shared_model.errors import HipfedError


@contextmanager
def plain_refusal(command: str) -> Iterator[None]:
    """Print what hipfed refuses within, without a traceback, and exit with 1.

    Args:
        command: the program's name, before the text.
    """
    try:
        yield
    except HipfedError as error:
        Console(stderr=True).print(f"{command}: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
