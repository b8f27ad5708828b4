"""`hipfed-client predict`: the risks of a hospital's patients by a finished model."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from client.commands.enrolment import DEFAULT_HOME, Home
from shared_model.errors import SettingsError
from shared_model.process.command_refusal import plain_refusal


def predict(
    *,
    run: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder of a finished run.")],
    data: Annotated[Path, typer.Option(exists=True, file_okay=False, help="This hospital's folder.")],
    out: Annotated[Path, typer.Option(help="Table to write (.csv), readable by you only; must not exist.")],
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            file_okay=False,
            help="Where layers of this hospital's own were kept. [default: $HIPFED_CACHE, else as in --home]",
        ),
    ] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Write the predicted risk of every patient; the outcome need not be known, nor be a column.

    The table describes patients: it stays at the hospital.
    """
    from client.data import named_folder
    from client.data.screen import problems_listed
    from client.decoded import decoded_data
    from client.patient.screen import write_private
    from client.prediction import predict_site
    from client.site import Site

    data = named_folder(data)
    with (
        plain_refusal("hipfed-client"),
        problems_listed(data.name),
        decoded_data(cache, data=data, home=home) as cache_dir,
    ):
        _check_out(out)
        predictions = predict_site(run, Site(data.name, data, cache_dir, with_outcome=False))
        table = predictions.to_frame()
        write_private(out, table.to_csv(index=False))
    console, mean = Console(), table["risk"].mean()
    console.print(f"{len(table)} patients, mean predicted risk {mean:.3f}", highlight=False)
    if said := predictions.describe_seen():
        console.print(said, highlight=False)
    console.print("Research use only; not for decisions about a patient.", highlight=False)
    console.print(f"written to {out}", markup=False, soft_wrap=True)


def _check_out(out: Path) -> None:
    """Refuse a name before the work is done.

    Raises:
        SettingsError: a file is there already, or the name is not that of a table.
    """
    if out.suffix != ".csv":
        raise SettingsError(f"--out at {out}: expected a name that ends with .csv, got {out.suffix or 'none'}.")
    if out.exists():
        raise SettingsError(f"--out at {out}: expected a new file, got one that exists. Choose another name.")
    if not out.resolve().parent.is_dir():
        raise SettingsError(f"--out at {out}: expected a folder that exists, got none. Make it first.")
