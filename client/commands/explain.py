"""`hipfed-client explain`: one patient's prediction explained, as a page or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from client.commands.enrolment import DEFAULT_HOME, Home
from shared_model.errors import SettingsError
from shared_model.process.command_refusal import plain_refusal

if TYPE_CHECKING:
    from client.site import Site

PAGE, DATA = ".html", ".json"


def explain(
    *,
    run: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of a finished run.")],
    data: Annotated[Path, typer.Option(exists=True, file_okay=False, help="This hospital's folder.")],
    patient: Annotated[str, typer.Option(help="Patient id, as in patients.*.")],
    out: Annotated[
        Path, typer.Option(help="File to write, readable by you only: a page (.html) or all numbers (.json).")
    ],
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            file_okay=False,
            help="Keep decoded data there. [default: $HIPFED_CACHE, else as in --home]",
        ),
    ] = None,
    home: Home = DEFAULT_HOME,
    image_references: Annotated[int, typer.Option(min=1, help="Other patients to compare each image with.")] = 10,
    series_references: Annotated[int, typer.Option(min=2, help="Other patients to compare each series with.")] = 50,
) -> None:
    """Explain one patient's prediction: modalities, features, X-ray pixels, vital signs along time.

    The file describes a patient: it stays at the hospital.
    """
    from client.data import named_folder
    from client.data.screen import problems_listed
    from client.decoded import decoded_data
    from client.patient.screen import print_explanation
    from client.site import Site

    data = named_folder(data)
    with (
        plain_refusal("hipfed-client"),
        problems_listed(data.name),
        decoded_data(cache, data=data, home=home) as cache_dir,
    ):
        _check_out(out)
        references = (image_references, series_references)
        content = _write_explanation(out, run, Site(data.name, data, cache_dir), patient, references=references)
    print_explanation(Console(), content)
    Console().print(f"written to {out}", markup=False, soft_wrap=True)


def _write_explanation(
    out: Path, run: Path, site: Site, patient: str, *, references: tuple[int, int]
) -> dict[str, Any]:
    """The explanation, after it was written; references are numbers of other patients, for images and for series."""
    import torch

    from client.patient.cohort_risks import unseen_risks
    from client.patient.explanation import explain_patient
    from client.patient.run_evidence import gather_evidence
    from client.patient.run_model import open_run
    from client.patient.screen import write_private

    model = open_run(run, site, device=torch.device("cpu"))
    content = explain_patient(
        model,
        site,
        patient,
        evidence=gather_evidence(model, site),
        cohort=unseen_risks(model, site),
        image_references=references[0],
        series_references=references[1],
    )
    if out.suffix == PAGE:
        from client.patient_page.page import render_patient
        from client.patient_page.pictures import read_radiographs

        row = site.patients.patient_ids.index(content["patient_id"])
        write_private(out, render_patient(content, read_radiographs(site, row)))
    else:
        write_private(out, json.dumps(content, allow_nan=False) + "\n")
    return content


def _check_out(out: Path) -> None:
    """Refuse a name before the work is done.

    Raises:
        SettingsError: nothing can be written there, or nothing that we write.
    """
    if out.suffix not in (PAGE, DATA):
        got = out.suffix or "none"
        raise SettingsError(f"--out at {out}: expected a name that ends with {PAGE} or {DATA}, got {got}.")
    if out.is_dir():
        raise SettingsError(f"--out at {out}: expected a file, got a folder.")
    if not out.resolve().parent.is_dir():
        raise SettingsError(f"--out at {out}: expected a folder that exists, got none. Make it first.")
