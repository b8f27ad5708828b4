"""`--version`, the same for all three commands."""

from typing import Annotated

import typer

from shared_model.version import own_version


def _print_version(asked: bool) -> bool:  # noqa: FBT001 - typer's callback; its value becomes the parameter's
    if asked:
        typer.echo(f"hipfed {own_version()}")
        raise typer.Exit
    return asked


Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
]
"""Parameter of a command's callback; its default is False."""
