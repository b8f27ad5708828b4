"""`hipfed-client`: what a hospital runs on its own machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from client.commands.approve import approve
from client.commands.deployment import start, status, stop
from client.commands.doctor import doctor
from client.commands.enrolment import keygen, request
from client.commands.worker import worker
from shared_model.command_version import Version
from shared_model.errors import DataError, HipfedError, SettingsError

app = typer.Typer(name="hipfed-client", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for _command in (keygen, request, approve, doctor, start, status, stop, worker):
    app.command()(_command)


@app.callback()
def main(*, version: Version = False) -> None:
    """One hospital of a federated study. Patients stay here. Research use only."""


@app.command()
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
            "--cache", file_okay=False, help="Folder of decoded data. [default: $HIPFED_CACHE or ~/.cache/hipfed]"
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
    from client.data import default_cache_dir

    cache_dir = cache or default_cache_dir()
    hospitals = find_hospitals(folder)
    fine = sum(check_hospital(hospital, schema, cache_dir=cache_dir, quality=quality) for hospital in hospitals)
    Console().print(
        f"{fine} of {len(hospitals)} hospitals fine" if len(hospitals) > 1 else "fine" if fine else "not fine"
    )
    if fine < len(hospitals):
        raise typer.Exit(code=1)


@app.command()
def explain(
    *,
    run: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of a finished run.")],
    data: Annotated[Path, typer.Option(exists=True, file_okay=False, help="This hospital's folder.")],
    patient: Annotated[str, typer.Option(help="Patient id, as in patients.*.")],
    out: Annotated[Path, typer.Option(help="JSON file to write; readable by you only.")],
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache", file_okay=False, help="Folder of decoded data. [default: $HIPFED_CACHE or ~/.cache/hipfed]"
        ),
    ] = None,
    image_references: Annotated[int, typer.Option(min=1, help="Other patients to compare each image with.")] = 10,
    series_references: Annotated[int, typer.Option(min=2, help="Other patients to compare each series with.")] = 50,
) -> None:
    """Explain one patient's prediction: modalities, features, X-ray pixels, vital signs along time.

    The file describes a patient: it stays at the hospital.
    """
    import torch

    from client.data import default_cache_dir
    from client.data.screen import print_problems
    from client.patient_explanation import explain_patient
    from client.patient_screen import print_explanation, write_private
    from client.run_model import open_run
    from client.site import Site

    try:
        if out.suffix != ".json":
            raise SettingsError(f"--out at {out}: expected a name that ends with .json, got {out.suffix or 'none'}.")
        if out.is_dir():
            raise SettingsError(f"--out at {out}: expected a file, got a folder.")
        if not out.resolve().parent.is_dir():
            raise SettingsError(f"--out at {out}: expected a folder that exists, got none. Make it first.")
        site = Site(data.resolve().name, data.resolve(), cache or default_cache_dir())
        model = open_run(run, site, device=torch.device("cpu"))
        content = explain_patient(
            model, site, patient, image_references=image_references, series_references=series_references
        )
        write_private(out, json.dumps(content, allow_nan=False) + "\n")
    except DataError as error:
        print_problems(Console(stderr=True), data.resolve().name, error.problems)
        raise typer.Exit(code=1) from error
    except HipfedError as error:
        Console(stderr=True).print(Text(f"hipfed-client: {error}", style="red"), soft_wrap=True)
        raise typer.Exit(code=1) from error
    print_explanation(Console(), content)
    Console().print(f"written to {out}", markup=False, soft_wrap=True)
