"""`hipfed-server study`: the file by which hospitals approve a study."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from shared_model.errors import SettingsError
from shared_model.process.command_refusal import plain_refusal


def study(
    *,
    schema: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="The study's schema.toml.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="File to write, e.g. STUDY.json.")],
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting; repeat for more.")
    ] = None,
) -> None:
    """Write what hospitals approve: schema, every setting, versions, and the hash of all that.

    Seed and fold are settings: each fold of a cross-validation has its own file.
    """
    from server.idle_settings import refuse_idle_settings
    from server.launch import parse_plan
    from server.settings_check import check_settings, refuse_simulations_only
    from shared_model.config import parse_assignments
    from shared_model.privacy.second_moments import least_patients
    from shared_model.protocol.messages import PROTOCOL_VERSION
    from shared_model.protocol.study_hash import StudyFile
    from shared_model.schema import load_schema

    with plain_refusal("hipfed-server"):
        described, settings = load_schema(schema), parse_plan(parse_assignments(assignments or []))
        check_settings(described, settings)
        refuse_idle_settings(described, settings)
        refuse_simulations_only(settings)
        file = StudyFile.of(described, settings, protocol=PROTOCOL_VERSION)
        try:
            out.write_text(file.to_json(), encoding="utf-8")
        except OSError as error:
            raise SettingsError(f"--out at {out}: expected a file that can be written, got: {error}.") from error
    lines = [f"study {file.sha256}", f"written to {out}"]
    if least := least_patients(described, settings):
        lines.append(
            f"Hospitals with fewer than {least} training patients, twice the model's columns, will keep out of it (see "
            "trust-coordinator)."
        )
    Console().print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
