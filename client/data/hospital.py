"""Read a hospital's folder whole, or say everything that is wrong with it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped

from client.data.image_table import (
    IMAGES,
    ImageSet,
    Progress,
    find_image_files,
    list_image_files,
    no_images,
    read_images,
)
from client.data.kinds import find_reader
from client.data.likely_names import is_table, misnamed_files
from client.data.patients import PATIENTS, PatientRows, read_patients
from client.data.problems import ProblemLog, fault
from client.data.tables import candidates, find_table, leaves_folder
from shared_model.errors import DataError, Problem, SchemaError
from shared_model.modalities.registry import open_modality
from shared_model.patient_arrays import PatientArrays
from shared_model.schema import STATIC, Schema

SCHEMA_FILE = "schema.toml"


@dataclass(frozen=True)
class Notes:
    """What a hospital may want to know though it breaks no rule.

    Attributes:
        ignored_columns: per table, columns that the study does not use.
        ignored_tables: tables of the folder that the study does not use; a misspelt name shows here.
        shared_images: image files that more than one row of images.* names.
        unnamed_images: image files whose header says another kind of image, where it could say X-ray.
        empty_tables: tables that have a header and no row.
    """

    ignored_columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ignored_tables: tuple[str, ...] = ()
    shared_images: tuple[str, ...] = ()
    unnamed_images: tuple[str, ...] = ()
    empty_tables: tuple[str, ...] = ()


@dataclass(frozen=True)
class HospitalData:
    """A hospital whose folder keeps the data contract.

    Attributes:
        arrays: its patients.
        notes: what was left aside while reading.
    """

    arrays: PatientArrays
    notes: Notes


@dataclass
class _Parts:
    """What is read table by table."""

    raw: dict[str, Shaped[np.ndarray, "patient ..."]] = field(default_factory=dict)
    present: dict[str, Bool[np.ndarray, " patient"]] = field(default_factory=dict)
    ignored: dict[str, tuple[str, ...]] = field(default_factory=dict)


def named_folder(folder: Path) -> Path:
    """The whole path of a folder as the user named it: beside a link, not beside what it leads to, lies its study."""
    return Path(os.path.abspath(folder))  # noqa: PTH100 - Path.absolute keeps `..`, Path.resolve follows links


def find_schema(folder: Path) -> Path:
    """The schema.toml that holds for a hospital (its own copy, else its cohort's) or for a cohort.

    Raises:
        SchemaError: there is none.
    """
    for place in (folder, named_folder(folder).parent):
        if (place / SCHEMA_FILE).is_file():
            return place / SCHEMA_FILE
    raise SchemaError(
        f"study schema at {folder}: expected {SCHEMA_FILE} in the folder or in its parent, got none. "
        "Copy the study's schema there, or name it with --schema."
    )


def is_hospital(folder: Path) -> bool:
    """True if a folder holds patients.* itself; a folder that may not be looked into is none."""
    try:
        return bool(candidates(folder, PATIENTS))
    except PermissionError:
        return False


def list_used_files(folder: Path, schema: Schema) -> list[Path] | None:
    """Every file that the reading of a hospital depends on; None if the images table or a table's place has a fault."""
    names = (PATIENTS, *schema.tables, *([IMAGES] if schema.images else []))
    files = [path for name in names for path in candidates(folder, name)]
    if any(leaves_folder(path) for path in files):
        return None
    if any(misnamed_files(folder, name) for name in names if not candidates(folder, name)):
        return None
    for table in candidates(folder, IMAGES) if schema.images else []:
        images = list_image_files(table, schema)
        if images is None:
            return None
        files += images
    return sorted(set(files))


def list_patient_images(folder: Path, schema: Schema, patient_id: str) -> dict[str, Path]:
    """The file of each of one patient's images, by name of the image; none if the images table has a fault."""
    table = find_table(folder, IMAGES, log=ProblemLog()) if schema.images else None
    return {} if table is None else find_image_files(table, schema, patient_id)


def read_hospital(
    folder: Path, schema: Schema, *, progress: Progress | None = None, with_outcome: bool = True
) -> HospitalData:
    """A hospital read from its files, without a cache.

    Args:
        folder: the hospital's folder.
        schema: the study.
        progress: told (done, in all) after each image.
        with_outcome: every patient's outcome must be there; False also reads patients of whom it is not known (-1), who
            can be scored and nothing else.

    Raises:
        DataError: the folder breaks the data contract; holds every problem.
    """
    if not folder.is_dir():
        detail = fault(expected="a folder", got="none", remedy="Check the path")
        raise DataError([Problem(file=folder.name, row=0, column="", rule="no-folder", detail=detail)])
    log = ProblemLog()
    tables = {name: find_table(folder, name, log=log) for name in schema.tables}
    event_sets = tuple(name for name in schema.events if tables[name] is not None)
    patients = read_patients(folder, schema, event_sets=event_sets, log=log, with_outcome=with_outcome)
    parts = _Parts()
    _read_tables(parts, tables, schema, patients, log=log)
    images_table = find_table(folder, IMAGES, log=log) if schema.images else None
    images = (
        no_images(schema, len(patients))
        if images_table is None
        else read_images(images_table, schema, patients, log=log, progress=progress)
    )
    log.raise_if_any()
    return _assemble(folder, schema, patients, parts, images, empty_tables=log.empty_tables)


def _read_tables(
    parts: _Parts, tables: Mapping[str, Path | None], schema: Schema, patients: PatientRows, *, log: ProblemLog
) -> None:
    for name, path in tables.items():
        if path is None:
            parts.raw[name] = open_modality(name, schema).empty(len(patients))
            parts.present[name] = np.zeros(len(patients), dtype=bool)
        else:
            read = find_reader(schema.kinds[name]).read
            parts.raw[name], parts.present[name], parts.ignored[name] = read(path, name, schema, patients, log=log)


def _assemble(
    folder: Path,
    schema: Schema,
    patients: PatientRows,
    parts: _Parts,
    images: ImageSet,
    *,
    empty_tables: tuple[str, ...],
) -> HospitalData:
    present = {STATIC: np.ones(len(patients), dtype=bool), **parts.present, **images.present}
    raw = {**parts.raw, **images.pixels}
    arrays = PatientArrays(
        patient_ids=patients.ids,
        outcome=patients.outcome,
        numbers=patients.numbers,
        levels=patients.levels,
        raw={name: raw[name] for name in schema.modalities if name != STATIC},
        present={name: present[name] for name in schema.modalities},
    )
    ignored = {PATIENTS: patients.ignored, **parts.ignored, IMAGES: images.ignored}
    used = {PATIENTS, *schema.tables, *([IMAGES] if schema.images else [])}
    read = {path.name for name in used for path in candidates(folder, name)}
    notes = Notes(
        ignored_columns={file: columns for file, columns in ignored.items() if columns},
        ignored_tables=tuple(
            sorted(path.name for path in folder.iterdir() if is_table(path.name) and path.name not in read)
        ),
        shared_images=images.shared_files,
        unnamed_images=images.unnamed_files,
        empty_tables=empty_tables,
    )
    return HospitalData(arrays=arrays, notes=notes)
