import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from client.data import load_hospital
from shared_model.errors import SettingsError
from shared_model.schema import load_schema
from simulation.cohort import SCENARIOS, CohortTruth, making, parse_truth, write_cohort
from simulation.cohort.risk import MODALITIES
from simulation.cohort.writing import write_hospital


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CohortTruth]:
    out = tmp_path_factory.mktemp("cohort") / "made"
    return out, write_cohort(out, patients=200, image_size=36, seed=3)


def tree_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(path.relative_to(folder).as_posix().encode())
        if path.is_file():
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def test_same_arguments_give_the_same_bytes(cohort: tuple[Path, CohortTruth], tmp_path: Path) -> None:
    write_cohort(tmp_path / "again", patients=200, image_size=36, seed=3)
    assert tree_hash(tmp_path / "again") == tree_hash(cohort[0])


def test_another_seed_gives_other_patients(cohort: tuple[Path, CohortTruth], tmp_path: Path) -> None:
    write_cohort(tmp_path / "other", patients=200, image_size=36, seed=4)
    for file in ("hospital_1/patients.csv", "hospital_1/vitals.parquet", "hospital_1/medications.csv"):
        assert (tmp_path / "other" / file).read_bytes() != (cohort[0] / file).read_bytes()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_hospital_keeps_the_data_contract(scenario: str, tmp_path: Path) -> None:
    out = tmp_path / "cohort"
    truth = write_cohort(out, hospitals=3, patients=66, image_size=36, scenario=scenario)
    schema = load_schema(out / "schema.toml")
    assert schema.modalities == MODALITIES
    for hospital in truth.hospitals:
        arrays = load_hospital(out / hospital.name, schema, cache_dir=tmp_path / "cache")
        assert len(arrays) == hospital.patients
        assert arrays.outcome.sum() == hospital.deaths
        assert 1 <= hospital.deaths < hospital.patients
        missing = {name: 1 - arrays.present[name].mean() for name in hospital.missing}
        assert missing == pytest.approx(hospital.missing)


def test_static_columns_are_read_back_as_they_were_drawn(cohort: tuple[Path, CohortTruth], tmp_path: Path) -> None:
    schema = load_schema(cohort[0] / "schema.toml")
    truth = parse_truth((cohort[0] / "truth.json").read_text(), source="truth.json")
    table = pd.read_csv(cohort[0] / "truth_patients.csv").set_index("patient_id")
    weight = {c.name: c.value for c in truth.coefficients}
    names = [column.name for column in schema.numbers]
    levels = [column.name for column in schema.categories]
    for hospital in ("hospital_1", "hospital_2"):  # CSV and Parquet
        arrays = load_hospital(cohort[0] / hospital, schema, cache_dir=tmp_path)
        x = dict(zip(names, arrays.numbers.T.astype(float), strict=True))
        k = dict(zip(levels, arrays.levels.T, strict=True))
        nursing, anaemic = k["residence"] == 2, x["haemoglobin_g_l"] < 100
        linear = (
            "age_years",
            "male",
            "dementia",
            "heart_failure",
            "copd",
            "malignancy",
            "haemoglobin_g_l",
            "albumin_g_l",
        )
        logit = sum(weight[name] * x[name] for name in linear) - truth.centre["static"]
        logit += weight["asa_class"] * k["asa_class"] + weight["mobility"] * k["mobility"]
        logit += weight["residence=nursing_home"] * nursing + weight["hours_to_surgery>36"] * (
            x["hours_to_surgery"] > 36
        )
        logit += weight["ln creatinine_umol_l"] * np.log(x["creatinine_umol_l"])
        logit += weight["ln(1 + crp_mg_l)"] * np.log1p(x["crp_mg_l"])
        logit += weight["dementia x nursing_home"] * x["dementia"] * nursing
        logit += weight["heart_failure x haemoglobin_g_l<100"] * x["heart_failure"] * anaemic
        complete = ~np.isnan(logit) & (k["mobility"] >= 0) & ~np.isnan(x["hours_to_surgery"])
        assert complete.sum() > 10
        expected = table.loc[list(arrays.patient_ids), "true_static"].to_numpy()
        np.testing.assert_allclose(logit[complete], expected[complete], atol=2e-4)


def test_contributions_add_up_to_the_logit(cohort: tuple[Path, CohortTruth]) -> None:
    table = pd.read_csv(cohort[0] / "truth_patients.csv")
    assert len(table) == cohort[1].patients == 200
    for kind in ("true", "best"):
        total = cohort[1].b0 + table[[f"{kind}_{name}" for name in MODALITIES]].sum(axis=1)
        np.testing.assert_allclose(table[f"{kind}_logit"], total, atol=1e-6)
    np.testing.assert_allclose(table["true_risk"], 1 / (1 + np.exp(-table["true_logit"])), rtol=1e-6)


def test_contribution_of_the_hip_follows_from_the_coefficients(cohort: tuple[Path, CohortTruth]) -> None:
    table = pd.read_csv(cohort[0] / "truth_patients.csv")
    by_name = {coefficient.name: coefficient for coefficient in cohort[1].coefficients}
    shift, bone = by_name["displacement"], by_name["bone_loss"]
    assert shift.threshold is not None
    expected = shift.value * np.maximum(0, table["cause_displacement"] - shift.threshold)
    expected += bone.value * table["cause_bone_loss"] - cohort[1].centre["hip"]
    np.testing.assert_allclose(table["true_hip"], expected, atol=1e-6)


def test_absent_modality_contributes_nothing_to_the_best_prediction(cohort: tuple[Path, CohortTruth]) -> None:
    table = pd.read_csv(cohort[0] / "truth_patients.csv")
    absent = table["shown_opacity"].isna()
    assert absent.any()
    np.testing.assert_allclose(table.loc[absent, "best_chest"], 0, atol=1e-9)


def test_truth_is_within_the_promised_bands(cohort: tuple[Path, CohortTruth]) -> None:
    truth = cohort[1]
    assert 0.81 <= truth.best_auc <= 0.83
    assert truth.mortality == pytest.approx(0.078, abs=1e-6)
    assert truth.shares["static"] == pytest.approx(0.70, abs=0.01)
    # 200 patients at 7.8 %: 15.6 deaths expected, standard deviation 3.8, and a few turned at small hospitals.
    assert 4 <= truth.deaths <= 30


def test_truth_file_reads_back_equal(cohort: tuple[Path, CohortTruth]) -> None:
    assert parse_truth((cohort[0] / "truth.json").read_text(), source="truth.json") == cohort[1]


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"coefficients": [], "hospitals": []})])
def test_truth_refuses_another_file(text: str) -> None:
    with pytest.raises(SettingsError, match=r"expected a truth\.json"):
        parse_truth(text, source="truth.json")


def test_dicom_makers_differ_and_the_gray_values_agree(cohort: tuple[Path, CohortTruth], tmp_path: Path) -> None:
    schema = load_schema(cohort[0] / "schema.toml")
    seen, medians = [], []
    for number in (1, 2, 3):
        folder = cohort[0] / f"hospital_{number}"
        for path in sorted(folder.glob("hip/*.dcm"))[:1]:
            data = pydicom.dcmread(path)
            seen.append((data.PhotometricInterpretation, data.BitsStored, "WindowCenter" in data))
        arrays = load_hospital(folder, schema, cache_dir=tmp_path)
        medians.append(float(np.median(arrays.raw["chest"][arrays.present["chest"]])))
    assert seen == [("MONOCHROME2", 12, True), ("MONOCHROME1", 12, True)]
    assert len(list((cohort[0] / "hospital_2").glob("*/*.png"))) > 0
    assert max(medians) < 1.1 * min(medians)


def test_one_hospital_records_few_medications(cohort: tuple[Path, CohortTruth]) -> None:
    missing = [hospital.missing["medications"] for hospital in cohort[1].hospitals]
    assert missing.index(max(missing)) == 3
    assert missing[3] > 0.5


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"hospitals": 0}, "hospitals"),
        ({"patients": 4}, "patients"),
        ({"patients": 10.5}, "patients"),
        ({"image_size": 8}, "image_size"),
        ({"image_size": 2000}, "image_size"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
        ({"scenario": "nonsense"}, "scenario"),
    ],
)
def test_nonsense_is_refused_by_name_and_nothing_is_written(
    settings: dict[str, object], named: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=f"^{named}.*expected .* got"):
        write_cohort(tmp_path / "out", **settings)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_folder_that_holds_something_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(SettingsError, match="expected a new or empty folder"):
        write_cohort(tmp_path / "out", patients=20, image_size=36)
    assert {path.name for path in tmp_path.rglob("*")} == {"out", "mine.txt"}


def test_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SettingsError, match="expected a new or empty folder"):
        write_cohort(tmp_path / "out", patients=20, image_size=36)


def test_empty_folder_is_used_and_a_cohort_may_be_a_single_patient(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    truth = write_cohort(tmp_path / "out", hospitals=1, patients=1, image_size=36)
    assert (truth.best_auc_cohort, truth.shares_cohort) == (None, None)
    assert (tmp_path / "out" / "hospital_1" / "patients.csv").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_is_left_behind_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []

    def fail_at_the_second(folder: Path, *arguments: object, **named: object) -> None:
        if written:
            raise OSError("disk full")
        written.append(folder)
        write_hospital(folder, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "write_hospital", fail_at_the_second)
    with pytest.raises(OSError, match="disk full"):
        write_cohort(tmp_path / "out", patients=20, image_size=36)
    assert len(written) == 1
    assert list(tmp_path.iterdir()) == []
