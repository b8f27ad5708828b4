"""How a command ends that hipfed refuses: one plain text and exit status 1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from shared_model.errors import HipfedError
from shared_model.files import is_full


@contextmanager
def plain_refusal(command: str) -> Iterator[None]:
    """Print what hipfed refuses within, or that a disk is full, without a traceback, and exit with 1.

    Args:
        command: the program's name, before the text.
    """
    try:
        yield
    except HipfedError as error:
        _tell(f"{command}: {error}")
        raise typer.Exit(1) from error
    except OSError as error:
        if not is_full(error):
            raise
        _tell(f"{command}: {error.filename}: expected room on its disk, got none left. Make room, and try again.")
        raise typer.Exit(1) from error


def _tell(text: str) -> None:
    Console(stderr=True).print(text, style="red", markup=False, highlight=False, soft_wrap=True)
