"""Read images.*: which file is whose radiograph, and every radiograph in it."""

import os
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pandas as pd
from jaxtyping import Bool, UInt16

from client.data.columns import empty_cells, read_levels, read_texts
from client.data.disk import Disk
from client.data.gray_image import FittedImage
from client.data.ids import read_ids, without_asides
from client.data.images import read_image
from client.data.patients import PatientRows, find_patients
from client.data.problems import ImageError, ProblemLog, quote
from client.data.tables import TableCells, read_table
from shared_model.plain_text import plain_text
from shared_model.schema import Schema

IMAGES = "images"
IMAGE = "image"
FILE = "file"

Progress = Callable[[int, int], None]
"""Called with (images done, images in all) after each image."""


@dataclass(frozen=True)
class ImageSet:
    """The radiographs of all patients.

    Attributes:
        pixels: per image of the schema, gray values 0..65535; 0 where absent.
        present: per image of the schema, whether the patient has it.
        ignored: columns of images.* that were not read.
        shared_files: files that more than one row names.
        unnamed_files: files whose header calls the image something other, where it could say X-ray.
    """

    pixels: Mapping[str, UInt16[np.ndarray, "patient _height _width"]]
    present: Mapping[str, Bool[np.ndarray, " patient"]]
    ignored: tuple[str, ...] = ()
    shared_files: tuple[str, ...] = ()
    unnamed_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Task:
    row: int
    patient: int
    name: str
    path: Path


def no_images(schema: Schema, n_patients: int) -> ImageSet:
    """Every image of the schema, absent for every patient."""
    return ImageSet(
        pixels={name: np.zeros((n_patients, part.size, part.size), np.uint16) for name, part in schema.images.items()},
        present={name: np.zeros(n_patients, dtype=bool) for name in schema.images},
    )


def read_images(
    path: Path, schema: Schema, patients: PatientRows, *, log: ProblemLog, progress: Progress | None = None
) -> ImageSet:
    """The radiographs of a hospital; every file that counts is decoded, so that every damaged one is reported.

    Args:
        path: the images table: patient id, image, file.
        schema: the study.
        patients: rows of patients.*.
        log: receives every problem.
        progress: told after each image.
    """
    images = no_images(schema, len(patients))
    table = read_table(path, wanted=[schema.study.patient_id, IMAGE, FILE], log=log)
    if table is None:
        return images
    table = without_asides(table, schema.study.patient_id)
    rows = find_patients(table, schema.study.patient_id, patients)
    names = tuple(schema.images)
    codes = read_levels(table, IMAGE, levels=names, rule="unknown-image")
    if IMAGE in table:
        empty = empty_cells(table, IMAGE)
        table.refuse(empty, column=IMAGE, rule="unknown-image", expected="one of " + ", ".join(names), remedy="Fill it")
    counted = _choose_rows(table, schema)
    paths = _find_files(table, path.parent)
    tasks = [
        _Task(row=row, patient=int(rows[row]), name=names[codes[row]], path=found)
        for row, found in enumerate(paths)
        if found is not None and codes[row] >= 0 and counted[row]
    ]
    files = read_texts(table, FILE)
    unnamed: set[str] = set()
    for task, image in _decode(tasks, table, schema, progress=progress):
        if task.patient >= 0:
            images.pixels[task.name][task.patient] = image.pixels
            images.present[task.name][task.patient] = True
        if image.is_unnamed:
            unnamed.add(files.iloc[task.row])
    shared = tuple(sorted(files[files.duplicated() & (files != "")].unique()))
    return ImageSet(
        pixels=images.pixels,
        present=images.present,
        ignored=table.ignored,
        shared_files=shared,
        unnamed_files=tuple(sorted(unnamed)),
    )


def list_image_files(path: Path, schema: Schema) -> list[Path] | None:
    """The files that an images table names; None if the table or a path in it has a fault."""
    log = ProblemLog()
    table = read_table(path, wanted=[schema.study.patient_id, IMAGE, FILE], log=log)
    files = [] if table is None else _find_files(table, path.parent)
    return None if len(log) else [file for file in files if file is not None]


def find_image_files(path: Path, schema: Schema, patient_id: str) -> dict[str, Path]:
    """The file of each of one patient's images, by name of the image; none if the table has a fault."""
    log = ProblemLog()
    table = read_table(path, wanted=[schema.study.patient_id, IMAGE, FILE], log=log)
    if table is None:
        return {}
    counted = _choose_rows(table, schema)
    files = _find_files(table, path.parent)
    rows = zip(read_ids(table, schema.study.patient_id), read_texts(table, IMAGE), files, counted, strict=True)
    wanted = plain_text(patient_id)
    found = {name: file for owner, name, file, counts in rows if owner == wanted and file is not None and counts}
    return {} if len(log) else found


def _choose_rows(table: TableCells, schema: Schema) -> Bool[np.ndarray, " row"]:
    """Which rows count: of several for a patient and image the first or last, as the schema says, or none may be."""
    counted = np.ones(len(table), dtype=bool)
    if IMAGE not in table:
        return counted
    pairs = pd.DataFrame({"patient": read_ids(table, schema.study.patient_id), "image": read_texts(table, IMAGE)})
    whole = (pairs != "").all(axis=1).to_numpy()
    twice = np.zeros(len(table), dtype=bool)
    for name, part in schema.images.items():
        of_image = (pairs["image"] == name).to_numpy() & whole
        if part.several == "refuse":
            twice |= of_image & pairs.duplicated().to_numpy()
        else:
            counted &= ~(of_image & pairs.duplicated(keep=part.several).to_numpy())
    remedy = 'Keep the right row, or have the schema say several = "first" or "last" for this image'
    expected = "one file for each patient and image"
    table.refuse(twice, column=IMAGE, rule="duplicate-image", expected=expected, remedy=remedy)
    return counted


def _find_files(table: TableCells, folder: Path) -> list[Path | None]:
    """The file of each row; None where it is refused (reported)."""
    if FILE not in table:
        return [None] * len(table)
    root = folder.resolve()
    files: list[Path | None] = []
    leaves = np.zeros(len(table), dtype=bool)
    missing = np.zeros(len(table), dtype=bool)
    disk = Disk(root)
    for row, text in enumerate(read_texts(table, FILE)):
        found = disk.find(table.columns[FILE].shown(row).strip(), text)
        leaves[row] = _is_outside(text, root) or (found is not None and _is_outside(found, root))
        missing[row] = not leaves[row] and found is None
        files.append(None if leaves[row] or found is None else root / found)
    expected = "a path inside the hospital's folder"
    remedy = "Copy the file into the folder and write its path from there"
    table.refuse(leaves, column=FILE, rule="path-leaves-folder", expected=expected, remedy=remedy)
    remedy = "Check the path (separated by /, capitals matter) or remove the row"
    table.refuse(missing, column=FILE, rule="missing-image-file", expected="an existing file", remedy=remedy)
    return files


def _is_outside(text: str, root: Path) -> bool:
    if PurePosixPath(text).is_absolute() or PureWindowsPath(text).anchor or ".." in PureWindowsPath(text).parts:
        return True
    try:
        return not (root / text).resolve().is_relative_to(root)
    except (OSError, ValueError, RuntimeError):  # no such path can exist, so it is reported as missing
        return False


def _decode(
    tasks: list[_Task], table: TableCells, schema: Schema, *, progress: Progress | None
) -> list[tuple[_Task, FittedImage]]:
    done: list[tuple[_Task, FittedImage]] = []

    def attempt(task: _Task) -> FittedImage | ImageError:
        try:
            return read_image(task.path, size=schema.images[task.name].size)
        except ImageError as error:
            return error

    # Decoders warn, with quoted values, about oddities that they then handle; what they cannot handle raises.
    with warnings.catch_warnings(), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        warnings.simplefilter("ignore")
        for number, (task, result) in enumerate(zip(tasks, pool.map(attempt, tasks), strict=True), start=1):
            if isinstance(result, ImageError):
                line = int(table.lines[task.row])
                detail = f"{quote(read_texts(table, FILE).iloc[task.row])[1:-1]}: {result.detail}"
                table.log.add(table.file, row=line, column=FILE, rule=result.rule, detail=detail)
            else:
                done.append((task, result))
            if progress is not None:
                progress(number, len(tasks))
    return done
