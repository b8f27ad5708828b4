"""A whole synthetic cohort, made and written."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from shared_model.errors import SettingsError
from shared_model.schema import Images
from simulation.cohort.calibration import (
    calibrated_model,
    informative_modalities,
    sample_population,
    site_intercepts,
)
from simulation.cohort.ground_truth import Reckoning, hospital_truth, patient_truth
from simulation.cohort.outcomes import draw_outcomes
from simulation.cohort.patients import draw_patients
from simulation.cohort.sites import SyntheticSite, plan_sites
from simulation.cohort.study import schema_text, study_schema
from simulation.cohort.truth import CohortTruth
from simulation.cohort.writing import HospitalFiles, write_hospital
from simulation.scenarios import Scenario, find_scenario


def write_cohort(
    out: Path,
    *,
    hospitals: int | None = None,
    patients: int | None = None,
    image_size: int = 64,
    seed: int = 0,
    scenario: str = "default",
) -> CohortTruth:
    """Write a synthetic cohort: schema.toml, truth.json, truth_patients.csv and a folder per hospital.

    The same arguments give the same bytes of every file. Nothing is left behind where it fails.

    Args:
        out: folder to make; may exist if empty.
        hospitals: how many; None = the scenario's number (5; many-small: 100).
        patients: how many in all; None = the scenario's number (1600; many-small: 3000).
        image_size: edge of the radiographs, pixels, within what a schema allows.
        seed: 0 or more.
        scenario: a name in SCENARIOS.

    Raises:
        SettingsError: a number or name is out of range, or `out` holds something.
    """
    chosen = find_scenario(scenario)
    hospitals = chosen.hospitals if hospitals is None else hospitals
    patients = chosen.patients if patients is None else patients
    _check_number("hospitals", hospitals, low=1, high=1000)
    _check_number("patients", patients, low=hospitals, high=1_000_000)
    limits = Images.model_json_schema()["properties"]["size"]
    _check_number("image_size", image_size, low=limits["minimum"], high=limits["maximum"])
    _check_number("seed", seed, low=0, high=2**63 - 1)
    _check_empty(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        cohort = staging / "cohort"
        cohort.mkdir()
        truth = _fill(
            cohort,
            sites=plan_sites(hospitals=hospitals, patients=patients, equal_sizes=chosen.equal_sizes),
            image_size=image_size,
            seed=seed,
            scenario=scenario,
        )
        if out.exists():
            out.rmdir()
        cohort.rename(out)
    finally:
        shutil.rmtree(staging)
    return truth


def _check_number(name: str, value: int, *, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        reason = " (at least one patient a hospital)" if name == "patients" else ""
        raise SettingsError(
            f"{name} at write_cohort: expected an integer from {low} to {high}{reason}, got {value!r}. "
            "Give another number."
        )


def _check_empty(out: Path) -> None:
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise SettingsError(
            f"output folder at {out}: expected a new or empty folder, got one that holds something. "
            "Name another folder, or remove this one."
        )


def _fill(cohort: Path, *, sites: Sequence[SyntheticSite], image_size: int, seed: int, scenario: str) -> CohortTruth:
    chosen = find_scenario(scenario)
    affected = affected_index(sites, chosen)
    schema = study_schema(image_size)
    (cohort / "schema.toml").write_text(schema_text(image_size), encoding="utf-8", newline="\n")
    model = calibrated_model()
    population = sample_population(model, sites, scenario=chosen, affected=affected)
    intercepts = site_intercepts(population, sites, chosen)
    tables, entries = [], []
    for site in sites:
        drawn = draw_patients(site, patients=site.patients, seed=seed)
        intercept = intercepts[site.index]
        outcome, turned = draw_outcomes(model, drawn, site=site, intercept=intercept, seed=seed)
        ids = tuple(f"H{site.index + 1:03d}-{number:05d}" for number in range(1, site.patients + 1))
        here = chosen if site.index == affected else Scenario("")
        hospital = HospitalFiles(site=site, ids=ids, patients=drawn, outcome=outcome, scenario=here)
        write_hospital(cohort / site.name, hospital, schema=schema, seed=seed)
        informative = informative_modalities(drawn, site=site, scenario=chosen, affected=affected)
        tables.append(patient_truth(model, hospital, informative=informative, intercept=intercept))
        entries.append(hospital_truth(hospital, intercept=intercept, turned=turned))
    table = pd.concat(tables, ignore_index=True)
    table.to_csv(cohort / "truth_patients.csv", index=False, lineterminator="\n", float_format="%.9g")
    reckoning = Reckoning(model, population, intercepts, table, tuple(entries))
    affected_name = sites[affected].name if affected >= 0 else ""
    truth = reckoning.truth(scenario=scenario, affected=affected_name, seed=seed, image_size=image_size)
    (cohort / "truth.json").write_text(truth.to_json(), encoding="utf-8", newline="\n")
    return truth


def affected_index(sites: Sequence[SyntheticSite], scenario: Scenario) -> int:
    """The hospital that a scenario changes: the second largest, or the only one; -1 where it changes none or all."""
    if not scenario.affects_one_hospital:
        return -1
    return min(1, len(sites) - 1)
