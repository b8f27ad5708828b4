from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from shared_model.errors import SettingsError
from simulation.cohort import SCENARIOS, CohortTruth, write_cohort
from simulation.cohort.calibration import calibrated_model
from simulation.cohort.patients import draw_patients
from simulation.cohort.risk import expit
from simulation.cohort.sites import plan_sites
from simulation.scenarios import find_scenario

AFFECTED = "hospital_2"
TRUTH_FILES = {"truth.json", "truth_patients.csv"}
Make = Callable[[str], tuple[Path, CohortTruth]]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    made: dict[str, tuple[Path, CohortTruth]] = {}
    root = tmp_path_factory.mktemp("cohorts")

    def once(scenario: str) -> tuple[Path, CohortTruth]:
        if scenario not in made:
            truth = write_cohort(root / scenario, hospitals=3, patients=150, image_size=40, seed=5, scenario=scenario)
            made[scenario] = (root / scenario, truth)
        return made[scenario]

    return once


def changed_files(one: Path, other: Path) -> set[str]:
    """Files that differ or exist on one side only, relative to the cohort."""
    names = {path.relative_to(root).as_posix() for root in (one, other) for path in root.rglob("*") if path.is_file()}
    same = {
        name
        for name in names
        if (one / name).is_file()
        and (other / name).is_file()
        and (one / name).read_bytes() == (other / name).read_bytes()
    }
    return names - same


def gray(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    with Image.open(path) as image:
        return np.asarray(image, dtype=float)


def test_every_scenario_is_described_in_one_line() -> None:
    assert list(SCENARIOS) == [
        "default",
        "scanner-shift",
        "missing-chest",
        "flat-vitals",
        "shortcut",
        "unit-shift",
        "prevalence-shift",
        "many-small",
    ]
    assert all(text and "\n" not in text for text in SCENARIOS.values())


def test_default_changes_nothing(make: Make) -> None:
    assert make("default")[1].changes == {}


def test_scanner_shift_darkens_every_image_of_one_hospital_and_changes_nothing_else(make: Make) -> None:
    default, (shifted, truth) = make("default")[0], make("scanner-shift")
    images = {path.relative_to(default).as_posix() for path in (default / AFFECTED).glob("*/*.png")}
    assert changed_files(default, shifted) == images | {"truth.json"}
    assert all(gray(shifted / name).mean() < 0.8 * gray(default / name).mean() for name in images)
    assert truth.changes == {
        "hospital": AFFECTED,
        "gain": 0.75,
        "gamma": 1.6,
        "blur_sigma_pixels": pytest.approx(0.72),
    }


def test_missing_chest_removes_the_chest_x_rays_of_one_hospital_and_changes_nothing_else(make: Make) -> None:
    default, (without, truth) = make("default")[0], make("missing-chest")
    images = {path.relative_to(default).as_posix() for path in (default / AFFECTED / "chest").glob("*.png")}
    assert changed_files(default, without) == images | {f"{AFFECTED}/images.csv"} | TRUTH_FILES
    assert set(pd.read_csv(without / AFFECTED / "images.csv")["image"]) == {"hip"}
    table = pd.read_csv(without / "truth_patients.csv")
    assert table.loc[table["hospital"] == AFFECTED, "best_chest"].abs().max() < 1e-9
    pd.testing.assert_series_equal(table["true_logit"], pd.read_csv(default / "truth_patients.csv")["true_logit"])
    assert truth.best_auc < make("default")[1].best_auc
    assert truth.changes == {"hospital": AFFECTED, "image_absent": "chest"}


def test_flat_vitals_flatten_the_series_of_one_hospital_and_change_nothing_else(make: Make) -> None:
    default, (flat, truth) = make("default")[0], make("flat-vitals")
    assert changed_files(default, flat) == {f"{AFFECTED}/vitals.parquet"} | TRUTH_FILES
    before, after = (pd.read_parquet(root / AFFECTED / "vitals.parquet") for root in (default, flat))
    assert before.groupby("patient_id")["hr_bpm"].nunique().min() > 3
    channels = after.columns.drop(["patient_id", "time"])
    assert after.groupby("patient_id")[list(channels)].nunique().to_numpy().max() == 1
    pd.testing.assert_frame_equal(before.isna(), after.isna())
    assert truth.shares["vitals"] < make("default")[1].shares["vitals"]


def test_shortcut_marks_deaths_at_one_hospital_and_changes_nothing_else(tmp_path: Path) -> None:
    for scenario in ("default", "shortcut"):
        truth = write_cohort(tmp_path / scenario, hospitals=2, patients=500, image_size=36, seed=6, scenario=scenario)
    changed = changed_files(tmp_path / "default", tmp_path / "shortcut")
    marked = {Path(name).stem for name in changed - {"truth.json"}}
    assert changed - {"truth.json"} == {f"{AFFECTED}/hip/{patient}.png" for patient in marked}
    table = pd.read_csv(tmp_path / "shortcut" / "truth_patients.csv")
    table = table[(table["hospital"] == AFFECTED) & table["shown_displacement"].notna()]
    has = table["patient_id"].isin(marked)
    deaths = table["outcome"] == 1
    # Four standard errors around 90 % and 5 %.
    assert has[deaths].mean() == pytest.approx(0.90, abs=4 * np.sqrt(0.9 * 0.1 / deaths.sum()))
    assert has[~deaths].mean() == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / (~deaths).sum()))
    box = truth.changes["box_pixels"]
    inside = np.zeros((36, 36), dtype=bool)
    inside[box["top"] : box["bottom"], box["left"] : box["right"]] = True
    for patient in sorted(marked)[:5]:
        before, after = (gray(tmp_path / s / AFFECTED / "hip" / f"{patient}.png") for s in ("default", "shortcut"))
        assert (after[inside] == 255).all()
        np.testing.assert_array_equal(after[~inside], before[~inside])


def test_unit_shift_rescales_creatinine_at_one_hospital_and_changes_nothing_else(make: Make) -> None:
    default, (shifted, truth) = make("default")[0], make("unit-shift")
    assert changed_files(default, shifted) == {f"{AFFECTED}/patients.parquet", "truth.json"}
    before, after = (pd.read_parquet(root / AFFECTED / "patients.parquet") for root in (default, shifted))
    pd.testing.assert_frame_equal(before.drop(columns="creatinine_umol_l"), after.drop(columns="creatinine_umol_l"))
    # 1 mg/dL of creatinine is 88.42 umol/L.
    np.testing.assert_allclose(after["creatinine_umol_l"] * 88.42, before["creatinine_umol_l"], atol=0.45)
    assert truth.changes["factor"] == pytest.approx(1 / 88.42)


def test_prevalence_shift_raises_mortality_over_the_hospitals_by_the_intercept_alone(make: Make) -> None:
    default, (shifted, truth) = make("default")[0], make("prevalence-shift")
    tables = {f"hospital_{number}/patients.{'parquet' if number == 2 else 'csv'}" for number in (1, 2, 3)}
    changed = changed_files(default, shifted)
    assert TRUTH_FILES < changed <= tables | TRUTH_FILES
    before, after = (pd.read_csv(root / "hospital_1" / "patients.csv") for root in (default, shifted))
    pd.testing.assert_frame_equal(before.drop(columns="death_30d"), after.drop(columns="death_30d"))
    intercepts = [hospital.intercept for hospital in truth.hospitals]
    assert intercepts == sorted(intercepts)
    assert truth.coefficients == make("default")[1].coefficients
    before, after = (pd.read_csv(root / "truth_patients.csv") for root in (default, shifted))
    np.testing.assert_allclose(before["true_static"], after["true_static"])
    assert truth.changes == {"mortality": [0.03, 0.20]}


def test_prevalence_shift_reaches_3_and_20_percent(make: Make) -> None:
    population = draw_patients(plan_sites(hospitals=3, patients=150, equal_sizes=False)[2], patients=20_000, seed=1)
    logit = calibrated_model().true(population).logit.sum(axis=1)
    intercept = make("prevalence-shift")[1].hospitals[2].intercept
    # A sample that the intercept was not solved on; the risk varies by 0.2 between patients.
    assert expit(intercept + logit).mean() == pytest.approx(0.20, abs=0.01)


def test_many_small_has_a_hundred_hospitals_of_thirty_unless_told_otherwise(make: Make, tmp_path: Path) -> None:
    assert find_scenario("many-small").patients == 3000
    with pytest.raises(SettingsError, match="patients at write_cohort: expected an integer from 100 "):
        write_cohort(tmp_path / "c", patients=99, scenario="many-small")  # fewer than its hospitals
    assert {hospital.patients for hospital in make("many-small")[1].hospitals} == {50}
