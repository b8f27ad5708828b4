"""`hipfed-client`: what a hospital runs on its own machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from client.commands.deployment import start, status, stop
from client.data import default_cache_dir, find_schema, is_hospital, list_hospitals, open_hospital, summarise
from client.data.hospital import SCHEMA_FILE
from client.data.screen import print_problems, print_summary
from client.patient_explanation import explain_patient
from client.patient_screen import print_explanation, write_private
from client.quality.judging import judge_alone
from client.quality.screen import print_quality
from client.run_model import open_run
from client.site import Site
from shared_model.command_version import Version
from shared_model.errors import DataError, HipfedError, Problem, SettingsError
from shared_model.privacy.suppression import SmallCellRule
from shared_model.schema import Schema, load_schema

app = typer.Typer(name="hipfed-client", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for _command in (start, status, stop):
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
    cache_dir = cache or default_cache_dir()
    hospitals = _find_hospitals(folder)
    fine = sum(_check_hospital(hospital, schema, cache_dir=cache_dir, quality=quality) for hospital in hospitals)
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


def _find_hospitals(folder: Path) -> list[Path]:
    """The folder itself, or its sub-folders where they and not it hold patients."""
    below = list_hospitals(folder)
    return below if not is_hospital(folder) and any(is_hospital(path) for path in below) else [folder]


def _check_hospital(folder: Path, schema_file: Path | None, *, cache_dir: Path, quality: bool) -> bool:
    """Whether a hospital is fine; prints its problems, or its summary and where asked its data quality."""
    console, name = Console(), folder.resolve().name
    try:
        schema = load_schema(schema_file or find_schema(folder))
        if schema_file is None:
            _refuse_other_schema(folder, schema)
        screen = Console(stderr=True)
        with Progress(console=screen, transient=True, disable=not screen.is_terminal) as bar:
            task = bar.add_task(f"{name}: images", visible=False)
            hospital = open_hospital(
                folder,
                schema,
                cache_dir=cache_dir,
                progress=lambda done, total: bar.update(task, completed=done, total=total, visible=True),
            )
    except DataError as error:
        print_problems(console, name, error.problems)
        return False
    except HipfedError as error:
        console.print(Text(f"{name}: {error}", style="red"), soft_wrap=True)
        return False
    print_summary(console, name, summarise(hospital.arrays, schema), hospital.notes)
    if not quality:
        return True
    report = judge_alone(hospital.arrays, schema, rule=SmallCellRule())
    print_quality(console, report)
    return report.grade != "red"


def _refuse_other_schema(folder: Path, schema: Schema) -> None:
    """A hospital's own copy of the schema must say what its cohort's says: a study leaves out sites with another."""
    above = folder.resolve().parent / SCHEMA_FILE
    if above.is_file() and load_schema(above).sha256 != schema.sha256:
        detail = f"expected the study of {above}, got another. Replace this copy, or name the right one with --schema."
        raise DataError([Problem(file=SCHEMA_FILE, row=0, column="", rule="schema-differs", detail=detail)])
