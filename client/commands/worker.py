"""`hipfed-client worker`: the trusted half of a hospital, behind its socket."""

from pathlib import Path
from typing import Annotated

import typer

from shared_model.process.command_refusal import plain_refusal


def worker(
    *,
    data: Annotated[Path, typer.Option(exists=True, file_okay=False, help="The hospital's folder.")],
    name: Annotated[str, typer.Option(help="The hospital's name, as it is enrolled.")],
    socket: Annotated[Path, typer.Option(dir_okay=False, help="Socket to listen on, in a folder of its own.")],
    approvals: Annotated[
        Path, typer.Option(dir_okay=False, help="File of `hipfed-client approve`; what is not in it is refused.")
    ],
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            file_okay=False,
            help="Folder of decoded data. [default: $HIPFED_CACHE, or beside the approvals]",
        ),
    ] = None,
    courier_user: Annotated[
        str | None, typer.Option("--courier-user", help="User of the SuperNode. [default: this one]")
    ] = None,
    max_message_mib: Annotated[int, typer.Option("--max-message-mib", min=1, help="Longest question, in MiB.")] = 1024,
) -> None:
    """Answer the courier's questions about approved studies, until SIGTERM.

    It alone opens the data folder. `hipfed-client start` runs it beside the SuperNode.
    """
    from client.data import named_folder
    from client.worker.serving import serve_hospital

    with plain_refusal("hipfed-client"):
        serve_hospital(
            name,
            named_folder(data),
            cache_dir=cache.absolute() if cache else None,
            socket=socket.absolute(),
            approvals=approvals.absolute(),
            courier_user=courier_user,
            max_bytes=max_message_mib * 2**20,
        )
