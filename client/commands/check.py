"""`hipfed-client check`: everything that is wrong with a hospital's data, on this screen only."""

from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from client.cohort_folder import list_hospitals
from client.data import find_schema, is_hospital, named_folder, open_hospital, summarise
from client.data.hospital import SCHEMA_FILE
from client.data.likely_names import misnamed_files
from client.data.patients import PATIENTS
from client.data.ranges import wide_ranges
from client.data.screen import print_notes, print_problems, print_summary
from shared_model.errors import DataError, HipfedError, Problem
from shared_model.schema import Schema, load_schema
from shared_model.shapley.coalitions import MAX_PLAYERS

_TOO_MANY = (
    f"{{n}} modalities: a study explains at most {MAX_PLAYERS}, and is refused with more unless it says "
    "modalities=A,B,... or explain=none"
)


def find_hospitals(folder: Path) -> list[Path]:
    """The folder itself, or its sub-folders where they and not it hold patients, if under another name."""
    below = list_hospitals(folder)
    if is_hospital(folder):
        return [folder]
    return below if any(is_hospital(path) or misnamed_files(path, PATIENTS) for path in below) else [folder]


def check_hospital(folder: Path, schema_file: Path | None, *, cache_dir: Path | None, quality: bool) -> bool:
    """True if a hospital is fine; prints its problems, or its summary and where asked its data quality."""
    console, name = Console(), named_folder(folder).name
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
    if len(schema.modalities) > MAX_PLAYERS:
        print_notes(console, [_TOO_MANY.format(n=len(schema.modalities))])
    print_notes(console, wide_ranges(hospital.arrays, schema))
    if not quality:
        return True
    from client.quality.judging import judge_alone
    from client.quality.screen import print_quality
    from shared_model.privacy.suppression import SmallCellRule

    report = judge_alone(hospital.arrays, schema, rule=SmallCellRule())
    print_quality(console, report)
    return report.grade != "red"


def _refuse_other_schema(folder: Path, schema: Schema) -> None:
    """A hospital's own copy of the schema must say what its cohort's says: a study leaves out sites with another."""
    above = named_folder(folder).parent / SCHEMA_FILE
    if above.is_file() and load_schema(above).sha256 != schema.sha256:
        detail = f"expected the study of {above}, got another. Replace this copy, or name the right one with --schema."
        raise DataError([Problem(file=SCHEMA_FILE, row=0, column="", rule="schema-differs", detail=detail)])
