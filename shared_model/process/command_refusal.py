"""The end of a refused command: one plain text and exit status 1."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from shared_model.errors import HipfedError
from shared_model.process.files import is_forbidden, is_full

RESEARCH = ("matplotlib", "ray", "shap", "sklearn")
"""Packages of the extra `research`, which hospitals and coordinators install without."""


@contextmanager
def plain_refusal(command: str) -> Iterator[None]:
    """Print what hipfed refuses within, an extra that is missing, or a full or closed disk, and exit with 1.

    Args:
        command: the program's name, before the text.
    """
    try:
        yield
    except HipfedError as error:
        _tell(f"{command}: {error}")
        raise typer.Exit(1) from error
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in RESEARCH:
            raise
        _tell(f'{command}: expected the package {error.name}, got none. Install it: pip install "hipfed[research]"')
        raise typer.Exit(1) from error
    except OSError as error:
        if not is_full(error) and not is_forbidden(error):
            raise
        _tell(f"{command}: {_explain(error)}")
        raise typer.Exit(1) from error


def _explain(error: OSError) -> str:
    if is_full(error):
        return f"{error.filename}: expected room on its disk, got none left. Make room, and try again."
    return (
        f"{error.filename}: expected a place that this user may read and change, got: {error.strerror}. Mend its "
        "permissions or its disk's, or work as the user whose it is."
    )


def _tell(text: str) -> None:
    Console(stderr=True).print(text, style="red", markup=False, highlight=False, soft_wrap=True)
