"""`hipfed-client`: what a hospital runs on its own machine."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client.commands.approve import approve
from client.commands.deployment import start, status, stop
from client.commands.doctor import doctor
from client.commands.enrolment import keygen, request
from client.commands.explain import explain
from client.commands.predict import predict
from client.commands.viewer import viewer
from client.commands.worker import worker
from shared_model.process.command_refusal import plain_refusal
from shared_model.process.command_version import Version

app = typer.Typer(name="hipfed-client", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for _command in (keygen, request, approve, doctor, start, status, stop, worker, explain, viewer, predict):
    app.command()(plain_refusal("hipfed-client")(_command))


@app.callback()
def main(*, version: Version = False) -> None:
    """One hospital of a federated study. Patients stay here. Research use only."""


@app.command()
@plain_refusal("hipfed-client")
def check(
    *,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", exists=True, file_okay=False, help="A hospital's folder, or a folder of hospitals."
        ),
    ],
    schema: Annotated[
        Path | None,
        typer.Option(
            "--schema", exists=True, dir_okay=False, help="Study schema. [default: schema.toml in DIR or above it]"
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", file_okay=False, help="Keep decoded data there. [default: $HIPFED_CACHE, else nothing is kept]"
        ),
    ] = None,
    quality: Annotated[
        bool, typer.Option("--quality", help="Also judge images, recordings and columns, without other hospitals.")
    ] = False,
) -> None:
    """Say everything that is wrong with a hospital's data, or summarise what is there.

    Values are shown on this screen only; nothing is sent.
    """
    from client.commands.check import check_hospital, find_hospitals
    from client.data import chosen_cache_dir

    cache_dir = cache or chosen_cache_dir()
    hospitals = find_hospitals(folder)
    fine = sum(check_hospital(hospital, schema, cache_dir=cache_dir, quality=quality) for hospital in hospitals)
    Console().print(
        f"{fine} of {len(hospitals)} hospitals fine" if len(hospitals) > 1 else "fine" if fine else "not fine"
    )
    if fine < len(hospitals):
        raise typer.Exit(code=1)
