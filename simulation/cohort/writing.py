"""Hospitals' folders on disk: tables and radiographs of one hospital, from its patients."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shared_model.schema import Schema, StaticColumn
from simulation.cohort.chest_image import render_chests
from simulation.cohort.hip_image import render_hips
from simulation.cohort.image_files import rescan, stamp, suffix_of, write_image
from simulation.cohort.patients import SyntheticPatients, Vector, stream
from simulation.cohort.recordings import medications_table, vitals_table
from simulation.cohort.shapes import Plane
from simulation.cohort.sites import SyntheticSite
from simulation.cohort.study import CHEST, EVENTS, HIP, SERIES
from simulation.scenarios import Scenario

_CHUNK_PIXELS = 1_000_000
_CSV_NEWLINE = "\n"


@dataclass(frozen=True)
class HospitalFiles:
    """One hospital ready to be written.

    Attributes:
        site: how it files.
        ids: patient ids.
        patients: in the order of ids.
        outcome: 0 or 1 in the order of ids.
        scenario: what is different here; the default scenario at hospitals that are not affected.
    """

    site: SyntheticSite
    ids: tuple[str, ...]
    patients: SyntheticPatients
    outcome: NDArray[np.int64]
    scenario: Scenario


def write_hospital(folder: Path, hospital: HospitalFiles, *, schema: Schema, seed: int) -> None:
    """Write the folder of one hospital; the folder must not exist.

    Args:
        folder: to be made.
        hospital: what to write.
        schema: of the study.
        seed: of the cohort.
    """
    folder.mkdir()
    site, patients = hospital.site, hospital.patients
    _write_patients(folder, hospital, schema)
    rng = stream(seed, "vitals-noise", site.index)
    vitals = vitals_table(hospital.ids, patients, flat=hospital.scenario.flat_series, rng=rng)
    vitals.to_parquet(folder / f"{SERIES}.parquet", index=False)
    rng = stream(seed, "medications-noise", site.index)
    medications = medications_table(hospital.ids, patients, rng)
    medications.to_csv(folder / f"{EVENTS}.csv", index=False, lineterminator=_CSV_NEWLINE)
    listed = [
        row
        for image in (HIP, CHEST)
        if image != hospital.scenario.without_image
        for row in _write_images(folder, hospital, image=image, size=schema.images[image].size, seed=seed)
    ]
    images = pd.DataFrame(listed, columns=[schema.study.patient_id, "image", "file"])
    images.to_csv(folder / "images.csv", index=False, lineterminator=_CSV_NEWLINE)


def _write_patients(folder: Path, hospital: HospitalFiles, schema: Schema) -> None:
    patients, as_text = hospital.patients, hospital.site.table_format == "csv"
    table: dict[str, object] = {
        schema.study.patient_id: list(hospital.ids),
        schema.study.outcome: hospital.outcome.astype(np.int8),
    }
    for column in schema.static:
        values, decimals = patients.columns[column.name], 1
        if column.name == "creatinine_umol_l" and hospital.scenario.creatinine_factor is not None:
            values, decimals = np.round(values * hospital.scenario.creatinine_factor, 2), 2
        empty = patients.missing.get(column.name, np.zeros(len(patients), dtype=bool))
        table[column.name] = _cells(column, values, empty, decimals=decimals if as_text else None)
    recorded = schema.events[EVENTS].recorded
    if recorded is not None:
        table[recorded] = patients.present[EVENTS].astype(np.int8)
    frame = pd.DataFrame(table)
    if as_text:
        frame.to_csv(folder / "patients.csv", index=False, lineterminator=_CSV_NEWLINE)
    else:
        frame.to_parquet(folder / "patients.parquet", index=False)


def _cells(column: StaticColumn, values: Vector, empty: NDArray[np.bool_], *, decimals: int | None) -> object:
    """Cells of one column: text with at most `decimals` digits, or numbers if None; empty ones are "" or NaN."""
    if column.kind == "categorical":
        return [None if gone else column.levels[int(value)] for value, gone in zip(values, empty, strict=True)]
    if decimals is None:
        return np.where(empty, np.nan, values)
    return [
        "" if gone else f"{value:.{decimals}f}".removesuffix(".0") for value, gone in zip(values, empty, strict=True)
    ]


def _write_images(
    folder: Path, hospital: HospitalFiles, *, image: str, size: int, seed: int
) -> list[tuple[str, str, str]]:
    """Write the radiographs of one kind; the rows of images.csv."""
    site = hospital.site
    marked = _marked(hospital, image=image, seed=seed)
    (folder / image).mkdir()
    rng = stream(seed, f"{image}-noise", site.index)
    step = max(1, _CHUNK_PIXELS // size**2)
    rows = []
    for start in range(0, len(hospital.ids), step):
        part = slice(start, start + step)
        pictures = _pictures(hospital, part, image=image, size=size, rng=rng)
        if hospital.scenario.marker is not None and marked[part].any():
            pictures[marked[part]] = stamp(pictures[marked[part]], hospital.scenario.marker)
        for number in np.nonzero(hospital.patients.present[image][part])[0]:
            patient_id = hospital.ids[start + number]
            file = f"{image}/{patient_id}{suffix_of(site.image_format)}"
            write_image(
                folder / file,
                pictures[number],
                image_format=site.image_format,
                image=image,
                patient_id=patient_id,
                uid_seed=f"{seed}/{site.name}/{patient_id}/{image}",
            )
            rows.append((patient_id, image, file))
    return rows


def _pictures(hospital: HospitalFiles, part: slice, *, image: str, size: int, rng: np.random.Generator) -> Plane:
    shown = hospital.patients.shown
    if image == HIP:
        pictures = render_hips(shown["displacement"][part], shown["bone_loss"][part], size=size, rng=rng)
    else:
        pictures = render_chests(shown["opacity"][part], shown["heart_width"][part], size=size, rng=rng)
    return pictures if hospital.scenario.scanner is None else rescan(pictures, hospital.scenario.scanner)


def _marked(hospital: HospitalFiles, *, image: str, seed: int) -> NDArray[np.bool_]:
    marker = hospital.scenario.marker
    if marker is None or marker.image != image:
        return np.zeros(len(hospital.ids), dtype=bool)
    chance = np.where(hospital.outcome == 1, marker.in_deaths, marker.in_survivors)
    return stream(seed, "marker", hospital.site.index).random(len(hospital.ids)) < chance
