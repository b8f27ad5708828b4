"""`hipfed-server dashboard`: runs in a browser."""

from pathlib import Path
from typing import Annotated

import typer

from shared_model.process.command_refusal import plain_refusal


def dashboard(
    *,
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="The folder in which run folders lie.")],
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes any that is free.")] = 8780,
    address: Annotated[str, typer.Option(metavar="IP", help="Another than loopback needs --home.")] = "127.0.0.1",
    home: Annotated[
        Path | None, typer.Option(file_okay=False, help="The coordinator's folder, for TLS by its certificate.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, help="Token to log in with, mode 0600; needs --home.  [default: a new one where needed]"
        ),
    ] = None,
) -> None:
    """Show runs in a browser: how they go, their results side by side, their reports. Changes nothing."""
    from server.dashboard.serving import ListenAddress, serve

    with plain_refusal("hipfed-server"):
        serve(runs, ListenAddress(address, port, home, token_file), say=typer.echo)
