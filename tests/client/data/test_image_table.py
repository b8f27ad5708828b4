from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from client.data import open_hospital, read_hospital
from client.data.image_table import find_image_files, list_image_files
from client.data.images import read_image
from shared_model.errors import DataError

if TYPE_CHECKING:
    from tests.client.conftest import SmallHospital

HEADER = "patient_id,image,file\n"


def _refused(hospital: SmallHospital) -> list[tuple[int, str, str]]:
    with pytest.raises(DataError) as refused:
        read_hospital(hospital.folder, hospital.schema)
    return [(problem.row, problem.column, problem.rule) for problem in refused.value.problems]


@pytest.mark.parametrize(
    ("file", "rule"),
    [
        ("/etc/hostname", "path-leaves-folder"),
        ("images/../images/p1-hip.png", "path-leaves-folder"),
        ("..\\p1-hip.png", "path-leaves-folder"),
        ("C:\\images\\p1-hip.png", "path-leaves-folder"),
        ("images\\p1-hip.png", "missing-image-file"),
        ("IMAGES/p1-hip.png", "missing-image-file"),
        ("images", "missing-image-file"),
        ("", "missing-image-file"),
        ("x" * 5000, "missing-image-file"),
        ("images.csv", "unreadable-image"),
    ],
)
def test_read_images_refuses_a_file_that_is_no_image_of_the_folder(
    hospital: SmallHospital, file: str, rule: str
) -> None:
    hospital.write("images.csv", f"{HEADER}P1,hip,{file}\n")

    assert _refused(hospital) == [(2, "file", rule)]


def test_read_images_refuses_a_path_with_a_nul_byte(hospital: SmallHospital) -> None:
    (hospital.folder / "images.csv").unlink()
    table = pd.DataFrame({"patient_id": ["P1"], "image": ["hip"], "file": ["a\0b.png"]})
    table.to_parquet(hospital.folder / "images.parquet")

    assert _refused(hospital) == [(2, "file", "missing-image-file")]


def test_read_images_follows_a_link_inside_the_folder(hospital: SmallHospital) -> None:
    (hospital.folder / "link.png").symlink_to(hospital.folder / "images" / "p1-hip.png")
    hospital.write("images.csv", f"{HEADER}P1,hip,link.png\n")

    assert read_hospital(hospital.folder, hospital.schema).arrays.present["hip"].tolist() == [True, False, False, False]


def test_read_images_names_each_image_that_may_not_be_used(
    hospital: SmallHospital, write_dicom: Callable[..., Path]
) -> None:
    pixels = np.arange(16 * 16, dtype=np.uint16).reshape(16, 16)
    faulty = {
        "burned": write_dicom(pixels, name="burned.dcm", BurnedInAnnotation="YES"),
        "frames": write_dicom(pixels, name="frames.dcm", NumberOfFrames=2),
        "blank": write_dicom(pixels * 0, name="blank.dcm"),
    }
    for path in faulty.values():
        path.rename(hospital.folder / path.name)
    rows = "".join(f"P{number},hip,{path.name}\n" for number, path in enumerate(faulty.values(), start=1))
    hospital.write("images.csv", HEADER + rows)

    assert _refused(hospital) == [
        (2, "file", "burned-in-annotation"),
        (3, "file", "multi-frame"),
        (4, "file", "blank-image"),
    ]


def test_read_images_refuses_a_second_file_for_a_patient_and_image(hospital: SmallHospital) -> None:
    hospital.write(
        "images.csv", f"{HEADER}P1,hip,images/p1-hip.png\nP1,hip,images/p2-hip.png\nP2,hip,images/p2-hip.png\n"
    )

    assert _refused(hospital) == [(3, "image", "duplicate-image")]


def test_read_images_puts_each_image_at_its_patient(hospital: SmallHospital) -> None:
    hospital.write("images.csv", f"{HEADER}P4,chest,images/p2-hip.png\nP2,hip,images/p1-hip.png\n")

    images = read_hospital(hospital.folder, hospital.schema).arrays.raw

    np.testing.assert_array_equal(images["chest"][3], read_image(hospital.folder / "images/p2-hip.png", size=40).pixels)
    np.testing.assert_array_equal(images["hip"][1], read_image(hospital.folder / "images/p1-hip.png", size=48).pixels)
    assert not images["chest"][:3].any()


def test_read_images_tells_its_progress(hospital: SmallHospital) -> None:
    told: list[tuple[int, int]] = []

    read_hospital(hospital.folder, hospital.schema, progress=lambda done, total: told.append((done, total)))

    assert told == [(1, 3), (2, 3), (3, 3)]


def test_list_image_files_is_none_when_a_path_has_a_fault(hospital: SmallHospital) -> None:
    table = hospital.folder / "images.csv"
    files = list_image_files(table, hospital.schema)
    assert files is not None
    assert [path.name for path in files] == ["p1-hip.png", "p2-hip.png", "p1-chest.png"]
    hospital.edit("images.csv", "images/p1-hip.png", "images/none.png")

    assert list_image_files(table, hospital.schema) is None


def test_read_images_ignores_the_table_when_the_study_has_no_images(hospital: SmallHospital) -> None:
    schema = hospital.schema.model_copy(update={"images": {}})
    Image.new("L", (4, 4)).save(hospital.folder / "images" / "p1-hip.png")

    hospital_read = read_hospital(hospital.folder, schema)

    assert set(hospital_read.arrays.raw) == set(schema.modalities) - {"static"}
    assert hospital_read.notes.ignored_tables == ("images.csv",)


@pytest.mark.parametrize(("several", "row"), [("first", 0), ("last", 2)])
def test_read_images_counts_the_row_that_the_schema_says(hospital: SmallHospital, several: str, row: int) -> None:
    images = {"hip": hospital.schema.images["hip"].model_copy(update={"several": several})}
    schema = hospital.schema.model_copy(update={"images": images | {"chest": hospital.schema.images["chest"]}})
    files = ["images/p1-hip.png", "images/p2-hip.png", "images/p1-chest.png"]
    rows = "".join(f"P1,hip,{file}\n" for file in files)
    hospital.write("images.csv", f"{HEADER}{rows}P2,hip,{files[1]}\n")

    read = read_hospital(hospital.folder, schema).arrays

    chosen = hospital.folder / files[row]
    np.testing.assert_array_equal(read.raw["hip"][0], read_image(chosen, size=48).pixels)
    assert read.present["hip"].tolist() == [True, True, False, False]
    assert find_image_files(hospital.folder / "images.csv", schema, "P1") == {"hip": chosen}


def test_read_images_refuses_a_second_file_of_one_image_while_another_takes_the_last(hospital: SmallHospital) -> None:
    images = {"hip": hospital.schema.images["hip"].model_copy(update={"several": "last"})}
    schema = hospital.schema.model_copy(update={"images": images | {"chest": hospital.schema.images["chest"]}})
    twice = "P1,{0},images/p1-hip.png\nP1,{0},images/p2-hip.png\n"
    hospital.write("images.csv", HEADER + twice.format("hip") + twice.format("chest"))

    with pytest.raises(DataError) as refused:
        read_hospital(hospital.folder, schema)
    assert [(problem.row, problem.rule) for problem in refused.value.problems] == [(5, "duplicate-image")]
    assert 'several = "first" or "last"' in refused.value.problems[0].detail


@pytest.mark.parametrize(("modality", "noted"), [("OT", True), ("CR", False)])
def test_read_images_notes_what_does_not_call_itself_an_x_ray(
    hospital: SmallHospital, write_dicom: Callable[..., Path], tmp_path: Path, *, modality: str, noted: bool
) -> None:
    pixels = np.arange(24 * 20, dtype=np.uint16).reshape(24, 20)
    write_dicom(pixels, Modality=modality).rename(hospital.folder / "a.dcm")
    hospital.write("images.csv", f"{HEADER}P1,hip,a.dcm\nP2,hip,images/p1-hip.png\n")

    first = open_hospital(hospital.folder, hospital.schema, cache_dir=tmp_path / "cache").notes
    again = open_hospital(hospital.folder, hospital.schema, cache_dir=tmp_path / "cache").notes

    assert first.unnamed_images == (("a.dcm",) if noted else ())
    assert again == first
