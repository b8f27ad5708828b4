"""`hipfed-client viewer`: the hospital's patients in a browser on this machine."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client.commands.enrolment import DEFAULT_HOME, Home
from shared_model.process.command_refusal import plain_refusal


def viewer(
    *,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="This hospital's folder.")
    ],
    run: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of a finished run.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1, the only address; 0: a free one.")] = 0,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            file_okay=False,
            help="Keep decoded data there. [default: $HIPFED_CACHE, else as in --home]",
        ),
    ] = None,
    home: Home = DEFAULT_HOME,
    outcomes: Annotated[bool, typer.Option("--outcomes", help="Also list what happened, to look back.")] = False,
    image_references: Annotated[int, typer.Option(min=1, help="Other patients to compare each image with.")] = 10,
    series_references: Annotated[int, typer.Option(min=2, help="Other patients to compare each series with.")] = 50,
) -> None:
    """Show the hospital's patients with their predicted risks, each explained on a page of its own, until Ctrl-C.

    Only the browser of who started it is served, and only on this machine. Nothing is written.
    """
    import torch

    from client.data import named_folder
    from client.data.screen import problems_listed
    from client.decoded import decoded_data
    from client.patient.run_model import open_run
    from client.patient_page.viewer.app import build_viewer
    from client.patient_page.viewer.roster import PatientList, References
    from client.site import Site
    from shared_model.pages.serving import listen, serve_until_ctrl_c

    console, screen = Console(), Console(stderr=True)
    folder = named_folder(folder)
    with (
        plain_refusal("hipfed-client"),
        problems_listed(folder.name),
        decoded_data(cache, data=folder, home=home) as cache_dir,
        listen(port) as listener,
    ):
        site = Site(folder.name, folder, cache_dir)
        with screen.status("reading patients and predicting their risks"):
            model = open_run(run, site, device=torch.device("cpu"))
            references = References(images=image_references, series=series_references)
            roster = PatientList(model, site, references=references, with_outcomes=outcomes)
        console.print(f"{len(roster.rows)} patients of {site.name}; Ctrl-C ends the viewer.", markup=False)
        console.print("Open this address in a browser on this machine; it works once:", markup=False)
        viewer = build_viewer(roster, port=listener.getsockname()[1])
        console.print(viewer.start_address, markup=False, highlight=False, soft_wrap=True)
        serve_until_ctrl_c(viewer, listener, lifespan="off")
    console.print("ended", markup=False)
