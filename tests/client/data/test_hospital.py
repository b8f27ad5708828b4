from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from client.cohort_folder import list_hospitals
from client.data import find_schema, load_hospital, open_hospital, read_hospital
from shared_model.errors import DataError, SchemaError
from shared_model.schema import load_schema

if TYPE_CHECKING:
    from tests.client.conftest import SmallHospital

COHORTS = Path(__file__).resolve().parents[3] / "../shared/data/cohorts"
NAN = float("nan")


def _problems(hospital: SmallHospital) -> list[tuple[str, int, str, str]]:
    with pytest.raises(DataError) as refused:
        read_hospital(hospital.folder, hospital.schema)
    return [(problem.file, problem.row, problem.column, problem.rule) for problem in refused.value.problems]


def test_read_hospital_gives_every_modality(hospital: SmallHospital) -> None:
    arrays = read_hospital(hospital.folder, hospital.schema).arrays

    assert arrays.patient_ids == ("P1", "P2", "P3", "P4")
    assert arrays.outcome.tolist() == [0, 1, 0, 0]
    np.testing.assert_array_equal(arrays.numbers, np.array([[81, 1], [92.5, 0], [NAN, NAN], [70, 1]], np.float32))
    assert arrays.levels.tolist() == [[1], [2], [-1], [0]]
    np.testing.assert_array_equal(arrays.raw["vitals"][0], [[85, 98], [70, 97], [NAN, NAN], [NAN, NAN]])
    np.testing.assert_array_equal(arrays.raw["vitals"][1, 3], [60, NAN])
    assert arrays.raw["drugs"].tolist() == [[7.5, 0], [0, 4], [0, 0], [0, 0]]
    assert arrays.raw["procedures"].tolist() == [[1, 0], [0, 0], [0, 1], [0, 0]]
    assert {name: arrays.raw[name].shape for name in ("hip", "chest")} == {"hip": (4, 48, 48), "chest": (4, 40, 40)}


def test_read_hospital_tells_who_has_what(hospital: SmallHospital) -> None:
    present = read_hospital(hospital.folder, hospital.schema).arrays.present

    assert {name: values.tolist() for name, values in present.items()} == {
        "static": [True, True, True, True],
        "vitals": [True, True, False, False],
        "drugs": [True, True, False, True],
        "procedures": [True, False, True, False],
        "hip": [True, True, False, False],
        "chest": [True, False, False, False],
    }
    assert list(present) == list(hospital.schema.modalities)


@pytest.mark.parametrize("name", ["patients.csv", "vitals.csv", "drugs.csv", "images.csv"])
def test_read_hospital_refuses_a_table_that_is_a_link_out_of_the_folder(
    hospital: SmallHospital, tmp_path: Path, name: str
) -> None:
    load_hospital(hospital.folder, hospital.schema, cache_dir=tmp_path / "cache")  # the same content, known and good
    (hospital.folder / name).rename(tmp_path / "elsewhere.csv")
    (hospital.folder / name).symlink_to(tmp_path / "elsewhere.csv")

    assert _problems(hospital) == [(name, 0, "", "path-leaves-folder")]
    with pytest.raises(DataError, match="path-leaves-folder"):
        load_hospital(hospital.folder, hospital.schema, cache_dir=tmp_path / "cache")


def test_read_hospital_follows_a_table_that_is_a_link_inside_the_folder(hospital: SmallHospital) -> None:
    (hospital.folder / "vitals.csv").rename(hospital.folder / "images" / "v2.csv")
    (hospital.folder / "vitals.csv").symlink_to("images/v2.csv")

    assert read_hospital(hospital.folder, hospital.schema).arrays.present["vitals"].sum() == 2


def test_read_hospital_notes_tables_without_rows(hospital: SmallHospital, tmp_path: Path) -> None:
    hospital.write("vitals.csv", "patient_id,time,hr,spo2\n")
    hospital.write("procedures.csv", "patient_id,item\n")

    assert read_hospital(hospital.folder, hospital.schema).notes.empty_tables == ("vitals.csv", "procedures.csv")
    for _ in ("read", "from the cache"):
        kept = open_hospital(hospital.folder, hospital.schema, cache_dir=tmp_path / "cache")
        assert kept.notes.empty_tables == ("vitals.csv", "procedures.csv")


def test_read_hospital_has_no_value_of_an_absent_modality(hospital: SmallHospital) -> None:
    for name in ("vitals.csv", "drugs.csv", "procedures.csv", "images.csv"):
        (hospital.folder / name).unlink()

    arrays = read_hospital(hospital.folder, hospital.schema).arrays

    assert {name for name, values in arrays.present.items() if values.any()} == {"static"}
    assert np.isnan(arrays.raw["vitals"]).all()
    assert not arrays.raw["drugs"].any()
    assert not arrays.raw["hip"].any()


def test_read_hospital_needs_no_recorded_column_without_the_events(hospital: SmallHospital) -> None:
    (hospital.folder / "drugs.csv").unlink()
    hospital.edit("patients.csv", "drugs_recorded", "something_else")

    assert not read_hospital(hospital.folder, hospital.schema).arrays.present["drugs"].any()


def test_read_hospital_reads_the_same_from_parquet(hospital: SmallHospital) -> None:
    expected = read_hospital(hospital.folder, hospital.schema).arrays
    for path in hospital.folder.glob("*.csv"):
        pd.read_csv(path).to_parquet(path.with_suffix(".parquet"))
        path.unlink()

    arrays = read_hospital(hospital.folder, hospital.schema).arrays

    assert arrays.patient_ids == expected.patient_ids
    np.testing.assert_array_equal(arrays.numbers, expected.numbers)
    np.testing.assert_array_equal(arrays.levels, expected.levels)
    np.testing.assert_array_equal(arrays.raw["vitals"], expected.raw["vitals"])
    np.testing.assert_array_equal(arrays.raw["drugs"], expected.raw["drugs"])
    np.testing.assert_array_equal(arrays.raw["hip"], expected.raw["hip"])


def test_read_hospital_notes_what_it_left_aside(hospital: SmallHospital) -> None:
    hospital.write("vital.csv", "patient_id,time\n")
    hospital.edit("images.csv", "p2-hip", "p1-hip")

    notes = read_hospital(hospital.folder, hospital.schema).notes

    assert notes.ignored_columns == {"patients": ("ward",)}
    assert notes.ignored_tables == ("vital.csv",)
    assert notes.shared_images == ("images/p1-hip.png",)


def test_read_hospital_names_every_fault_at_once(hospital: SmallHospital, tmp_path: Path) -> None:
    folder = hospital.folder
    hospital.write(
        "patients.csv",
        "patient_id,died,age,male,asa,drugs_recorded\n"
        "P1,0,181,1,2,1\n"
        "P2,2,NA,0,4,0\n"
        "P2,,80,x,1,1\n"
        ",1,80,1,1,\n"
        "P5,0,80,1,1,1\n",
    )
    hospital.write(
        "vitals.csv",
        "patient_id,time,hr\nP1,0,80\nP9,0,80\nP1,20,80\nP1,-0.1,80\nP1,,80\nP1,soon,80\nP1,1,999\nP1,1,inf\n",
    )
    hospital.write(
        "drugs.csv", "patient_id,item,dose\nP1,aspirin,1\nP1,opioid,\nP1,opioid,-1\nP2,opioid,1\n,opioid,1\n"
    )
    hospital.write("procedures.csv", "patient_id;item\nP1;nail\n")
    (tmp_path / "outside.png").write_bytes((folder / "images/p1-hip.png").read_bytes())
    (folder / "images/link.png").symlink_to(tmp_path / "outside.png")
    (folder / "images/cut.png").write_bytes((folder / "images/p1-hip.png").read_bytes()[:200])
    hospital.write(
        "images.csv",
        "patient_id,image,file\n"
        "P1,knee,images/p1-hip.png\n"
        "P1,hip,../outside.png\n"
        "P1,hip,images/none.png\n"
        "P5,hip,images/link.png\n"
        "P5,chest,images/cut.png\n"
        f"P1,chest,{tmp_path}/outside.png\n"
        "P8,chest,images/p1-chest.png\n",
    )

    assert _problems(hospital) == [
        ("drugs.csv", 2, "item", "unknown-item"),
        ("drugs.csv", 3, "dose", "missing-dose"),
        ("drugs.csv", 4, "dose", "negative-dose"),
        ("drugs.csv", 5, "patient_id", "not-recorded"),
        ("drugs.csv", 6, "patient_id", "empty-id"),
        ("images.csv", 2, "image", "unknown-image"),
        ("images.csv", 3, "file", "path-leaves-folder"),
        ("images.csv", 4, "file", "missing-image-file"),
        ("images.csv", 4, "image", "duplicate-image"),
        ("images.csv", 5, "file", "path-leaves-folder"),
        ("images.csv", 6, "file", "unreadable-image"),
        ("images.csv", 7, "file", "path-leaves-folder"),
        ("images.csv", 8, "patient_id", "unknown-patient"),
        ("patients.csv", 2, "age", "out-of-range"),
        ("patients.csv", 3, "age", "missing-marker"),
        ("patients.csv", 3, "asa", "unknown-level"),
        ("patients.csv", 3, "died", "outcome-not-0-1"),
        ("patients.csv", 4, "died", "missing-outcome"),
        ("patients.csv", 4, "male", "not-0-1"),
        ("patients.csv", 4, "patient_id", "duplicate-id"),
        ("patients.csv", 5, "drugs_recorded", "missing-recorded"),
        ("patients.csv", 5, "patient_id", "empty-id"),
        ("procedures.csv", 1, "", "wrong-delimiter"),
        ("vitals.csv", 1, "spo2", "missing-column"),
        ("vitals.csv", 3, "patient_id", "unknown-patient"),
        ("vitals.csv", 4, "time", "outside-grid"),
        ("vitals.csv", 5, "time", "outside-grid"),
        ("vitals.csv", 6, "time", "missing-time"),
        ("vitals.csv", 7, "time", "not-a-number"),
        ("vitals.csv", 8, "hr", "out-of-range"),
        ("vitals.csv", 9, "hr", "not-a-number"),
    ]


def test_data_error_tells_the_coordinator_rules_and_counts_only(hospital: SmallHospital) -> None:
    hospital.edit("patients.csv", "P1,0,81,1,2", "P1,0,secret,1,9")
    hospital.edit("patients.csv", "P2,1,92.5", "P2,1,999")

    with pytest.raises(DataError) as refused:
        read_hospital(hospital.folder, hospital.schema)

    assert refused.value.public_reason == "data check failed: not-a-number (1), out-of-range (1), unknown-level (1)"


@pytest.mark.parametrize(
    ("outcomes", "rule"), [(("0", "0", "0", "0"), "no-events"), (("1", "1.0", "1", "1"), "no-non-events")]
)
def test_read_hospital_refuses_an_outcome_without_contrast(
    hospital: SmallHospital, outcomes: tuple[str, ...], rule: str
) -> None:
    rows = "".join(f"P{number},{outcome},80,1,1,1\n" for number, outcome in enumerate(outcomes, start=1))
    for name in ("drugs.csv", "vitals.csv", "procedures.csv", "images.csv"):
        (hospital.folder / name).unlink()
    hospital.write("patients.csv", "patient_id,died,age,male,asa,drugs_recorded\n" + rows)

    assert _problems(hospital) == [("patients.csv", 0, "died", rule)]


def test_read_hospital_finds_faults_elsewhere_when_the_patients_are_unusable(hospital: SmallHospital) -> None:
    hospital.write("patients.csv", "P1,0,81,1,2,1\n")
    hospital.edit("vitals.csv", "4.9,90", "4.9,900")

    assert _problems(hospital) == [("patients.csv", 1, "", "no-header"), ("vitals.csv", 3, "hr", "out-of-range")]


def test_read_hospital_blames_no_other_file_for_a_dropped_patient_row(hospital: SmallHospital) -> None:
    hospital.edit("patients.csv", "P1,0,81", "P1,0,8,1")

    assert _problems(hospital) == [("patients.csv", 2, "", "row-length")]


def test_read_hospital_refuses_a_table_without_rows(hospital: SmallHospital) -> None:
    for name in ("drugs.csv", "vitals.csv", "procedures.csv", "images.csv"):
        (hospital.folder / name).unlink()
    hospital.write("patients.csv", "patient_id,died,age,male,asa\n")

    assert _problems(hospital) == [("patients.csv", 0, "", "no-rows")]


def test_read_hospital_refuses_a_folder_without_patients(hospital: SmallHospital) -> None:
    (hospital.folder / "patients.csv").unlink()

    assert _problems(hospital) == [("patients.csv", 0, "", "no-patients")]


def test_read_hospital_refuses_two_patient_tables(hospital: SmallHospital) -> None:
    pd.read_csv(hospital.folder / "patients.csv").to_parquet(hospital.folder / "patients.parquet")

    assert _problems(hospital) == [("patients.csv", 0, "", "two-files")]


def test_read_hospital_refuses_a_folder_that_is_not_there(hospital: SmallHospital) -> None:
    with pytest.raises(DataError, match="no-folder"):
        read_hospital(hospital.folder / "none", hospital.schema)


def test_find_schema_prefers_the_hospitals_own_copy(hospital: SmallHospital) -> None:
    assert find_schema(hospital.folder) == hospital.folder / "schema.toml"
    own = (hospital.folder / "schema.toml").rename(hospital.folder.parent / "schema.toml")
    assert find_schema(hospital.folder).resolve() == own.resolve()
    own.unlink()
    with pytest.raises(SchemaError, match="--schema"):
        find_schema(hospital.folder)


def test_list_hospitals_takes_visible_folders_in_order(tmp_path: Path) -> None:
    for name in ("west", "east", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / "schema.toml").touch()

    assert [path.name for path in list_hospitals(tmp_path)] == ["east", "west"]


@pytest.mark.skipif(not COHORTS.is_dir(), reason="the real cohorts (../shared/data) are not here")
@pytest.mark.parametrize(
    ("cohort", "patients", "events"), [("eicu_demo", 1202, 112), ("heart_disease", 920, 509), ("hipstudy", 729, 176)]
)
def test_load_hospital_reads_the_real_cohorts(cohort: str, patients: int, events: int, tmp_path: Path) -> None:
    schema = load_schema(find_schema(COHORTS / cohort))

    hospitals = [load_hospital(path, schema, cache_dir=tmp_path) for path in list_hospitals(COHORTS / cohort)]

    assert sum(len(arrays) for arrays in hospitals) == patients
    assert sum(int(arrays.outcome.sum()) for arrays in hospitals) == events


@pytest.mark.skipif(not COHORTS.is_dir(), reason="the real cohorts (../shared/data) are not here")
def test_load_hospital_agrees_with_pandas_on_real_vitals_and_medications(tmp_path: Path) -> None:
    folder = COHORTS / "eicu_demo" / "west"
    schema = load_schema(find_schema(folder))
    arrays = load_hospital(folder, schema, cache_dir=tmp_path)
    position = {patient: row for row, patient in enumerate(arrays.patient_ids)}
    vitals = pd.read_parquet(folder / "vitals.parquet")
    expected = np.full(arrays.raw["vitals"].shape, np.nan, dtype=np.float32)
    channels = [channel.name for channel in schema.series["vitals"].channels]
    expected[vitals["patient_id"].map(position), vitals["time"]] = vitals[channels]

    np.testing.assert_array_equal(arrays.raw["vitals"].astype(np.float32), expected)
    given = pd.read_csv(folder / "medications.csv").drop_duplicates()
    assert arrays.raw["medications"].sum() == len(given)
    recorded = pd.read_csv(folder / "patients.csv")["medications_recorded"] == 1
    assert arrays.present["medications"].tolist() == recorded.tolist()
