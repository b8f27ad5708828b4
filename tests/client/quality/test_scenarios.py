"""Each planted fault is found at its hospital under its name, and nothing else is raised anywhere."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from server.protocol.hospitals import Hospitals
from server.protocol.quality import judge_quality
from shared_model.patient_arrays import PatientArrays
from simulation.in_process import InProcessLink
from simulation.scenarios import ALL
from tests.client.quality.conftest import FAULTY, NAMES, SIDE, Change, Federation, found, with_images, with_series
from tests.server.small_cohort import describe_study, open_workers, small_settings

COHORTS = Path(__file__).resolve().parents[3] / "../shared/data/cohorts"
FLAT = {("flat-lines", "vitals", "red"), ("flat-lines", "vitals", "amber")}


def _another_scanner(arrays: PatientArrays) -> PatientArrays:
    scanner = ALL["scanner-shift"].scanner
    assert scanner is not None
    gain, gamma, blur = scanner.gain, scanner.gamma, SIDE * scanner.blur_fraction
    for name in ("hip", "chest"):
        arrays = with_images(
            arrays, name, lambda gray: gaussian_filter(np.clip(gain * gray**gamma, 0, 1), (0, blur, blur))
        )
    return arrays


def _without_chest(arrays: PatientArrays) -> PatientArrays:
    nobody = np.zeros(len(arrays), dtype=bool)
    return replace(arrays, present={**arrays.present, "chest": nobody})


def _flat_lines(arrays: PatientArrays) -> PatientArrays:
    def change(values: np.ndarray) -> np.ndarray:
        first = np.take_along_axis(values, (~np.isnan(values)).argmax(axis=1)[:, None], axis=1)
        return np.where(np.isnan(values), np.nan, first)

    return with_series(arrays, change)


def _marker(arrays: PatientArrays) -> PatientArrays:
    marker = ALL["shortcut"].marker
    assert marker is not None
    rng = np.random.default_rng(0)
    chance = np.where(arrays.outcome == 1, marker.in_deaths, marker.in_survivors)
    marked = (rng.random(len(arrays)) < chance)[arrays.present["hip"]]
    left, top, right, bottom = (round(SIDE * edge) for edge in marker.box)

    def change(gray: np.ndarray) -> np.ndarray:
        gray[marked, top:bottom, left:right] = 1.0
        return gray

    return with_images(arrays, "hip", change)


def _milligrams(arrays: PatientArrays) -> PatientArrays:
    factor = ALL["unit-shift"].creatinine_factor
    assert factor is not None
    numbers = arrays.numbers.copy()
    numbers[:, 4] *= np.float32(factor)
    return replace(arrays, numbers=numbers)


def _kilopascal(arrays: PatientArrays) -> PatientArrays:
    def change(values: np.ndarray) -> np.ndarray:
        values[:, :, 1] *= 0.1333
        return values

    return with_series(arrays, change)


def _each_fifth_cell(arrays: PatientArrays) -> PatientArrays:
    return with_series(arrays, lambda values: np.where(np.arange(60)[:, None] % 5 == 0, values, np.nan))


def _time_in_hours(arrays: PatientArrays) -> PatientArrays:
    def change(values: np.ndarray) -> np.ndarray:
        squeezed = np.full_like(values, np.nan)
        squeezed[:, 0] = np.nan_to_num(values[:, 5], nan=70.0)
        return squeezed

    return with_series(arrays, change)


def _negative(arrays: PatientArrays) -> PatientArrays:
    return with_images(arrays, "chest", lambda gray: 1 - gray)


def _sideways(arrays: PatientArrays) -> PatientArrays:
    return with_images(arrays, "hip", lambda gray: np.rot90(gray, axes=(1, 2)))


def _blank(arrays: PatientArrays) -> PatientArrays:
    def change(gray: np.ndarray) -> np.ndarray:
        gray[:] = 0.5
        gray[:, 0] = 1.0
        return gray

    return with_images(arrays, "chest", change)


def _grams_for_milligrams(arrays: PatientArrays) -> PatientArrays:
    doses = arrays.raw["medications"].copy()
    doses[:, 12] /= 1000  # paracetamol
    return replace(arrays, raw={**arrays.raw, "medications": doses})


def _no_albumin(arrays: PatientArrays) -> PatientArrays:
    numbers = arrays.numbers.copy()
    numbers[:, 3] = np.nan
    return replace(arrays, numbers=numbers)


def _deaths_without_chest(arrays: PatientArrays) -> PatientArrays:
    chest = arrays.present["chest"] & (arrays.outcome == 0)
    return replace(arrays, present={**arrays.present, "chest": chest})


def _survival_for_death(arrays: PatientArrays) -> PatientArrays:
    return replace(arrays, outcome=(1 - arrays.outcome).astype(np.int8))


def _copied_column(arrays: PatientArrays) -> PatientArrays:
    numbers = arrays.numbers.copy()
    numbers[:, 3] = 0.3 * numbers[:, 2]  # albumin filled from haemoglobin
    return replace(arrays, numbers=numbers)


PLANTED: dict[str, tuple[Change, set[tuple[str, str, str]]]] = {
    "missing-chest": (_without_chest, {("missing-modality", "chest", "amber")}),
    "flat-vitals": (_flat_lines, FLAT),
    "shortcut": (_marker, {("short-cut", "hip", "red")}),
    "unit-shift": (_milligrams, {("unit-shift", "static", "red")}),
    "pressure in kPa": (_kilopascal, {("unit-shift", "vitals", "red")}),
    "paracetamol in grams": (_grams_for_milligrams, {("dose-shift", "medications", "red")}),
    "albumin not measured": (_no_albumin, {("missing-values", "static", "amber")}),
    "chest films of survivors only": (_deaths_without_chest, {("missing-by-outcome", "chest", "amber")}),
    "albumin copied": (_copied_column, {("correlated", "static", "amber")}),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_fault_is_found_at_its_hospital_and_nothing_elsewhere(federation: Federation, fault: str) -> None:
    change, expected = PLANTED[fault]

    reports = federation.judge({FAULTY: change})

    assert found(reports[FAULTY]) == expected
    assert {name for name, report in reports.items() if found(report)} == {FAULTY}


AMONG_OTHERS: dict[str, tuple[Change, set[tuple[str, str, str]]]] = {
    "scanner-shift": (
        _another_scanner,
        {(check, image, "amber") for check in ("brightness", "contrast", "sharpness") for image in ("hip", "chest")},
    ),
    "every fifth value": (_each_fifth_cell, {("sampling-interval", "vitals", "red")}),
    "time in hours": (_time_in_hours, {("duration", "vitals", "red")}),
    "chest films negative": (_negative, {("inverted", "chest", "red")}),
    "hip films sideways": (_sideways, {("turned", "hip", "red")}),
    "chest films blank": (_blank, {("blank", "chest", "red")}),
}


@pytest.mark.parametrize("fault", AMONG_OTHERS)
def test_fault_with_several_signs_has_its_name_among_them_and_nothing_elsewhere(
    federation: Federation, fault: str
) -> None:
    change, expected = AMONG_OTHERS[fault]

    reports = federation.judge({FAULTY: change})

    assert found(reports[FAULTY]) >= expected
    assert {name for name, report in reports.items() if found(report)} == {FAULTY}


def test_sound_hospitals_are_all_green_and_all_are_judged_in_hundreds_of_numbers(federation: Federation) -> None:
    reports = federation.judge()

    assert set(reports) == set(NAMES)
    for report in reports.values():
        assert report is not None
        assert (report.grade, report.findings) == ("green", ())
        assert report.judged > 500


def test_sound_hospitals_stay_green_while_two_of_five_share_a_fault(federation: Federation) -> None:
    faulty = {"hospital_3", "hospital_5"}

    reports = federation.judge(dict.fromkeys(faulty, _milligrams))

    assert {name for name, report in reports.items() if found(report)} == faulty


def test_reversed_outcome_is_red_at_its_hospital_only(federation: Federation) -> None:
    reports = federation.judge({FAULTY: _survival_for_death})

    assert ("prevalence", "", "red") in found(reports[FAULTY])
    assert {name for name, report in reports.items() if report and report.grade == "red"} == {FAULTY}


def test_of_two_hospitals_that_differ_neither_is_red(federation: Federation) -> None:
    reports = federation.judge({FAULTY: _milligrams}, hospitals=2, min_sites=2)

    assert found(reports[FAULTY]) == found(reports["hospital_1"]) == {("unit-shift", "static", "amber")}


def test_item_that_fewer_than_min_sites_have_is_not_told(federation: Federation) -> None:
    judged = federation.judgement(dict.fromkeys(NAMES[2:], _without_chest))

    assert not judged.reference["chest/thumbnail/n"].any()
    assert not judged.reference["chest/pixels/sum"].any()
    assert judged.reference["hip/thumbnail/n"].all()
    assert not any(("inverted", "chest", "red") in found(report) for report in judged.reports.values())


def test_faults_of_a_modality_that_the_run_leaves_out_do_not_count(federation: Federation) -> None:
    reports = federation.judge({FAULTY: _flat_lines}, modalities="static,hip")

    assert not any(found(report) for report in reports.values())


@pytest.mark.parametrize("cohort", ["eicu_demo", "heart_disease", "hipstudy"])
def test_no_real_hospital_is_red(cohort: str, tmp_path: Path) -> None:
    folder = COHORTS / cohort
    if not folder.is_dir():
        pytest.skip("the real cohorts (../shared/data) are not here")
    workers = open_workers(folder, tmp_path)
    names = {node: worker.site.name for node, worker in enumerate(workers)}
    settings = small_settings(min_sites=min(3, len(workers)))
    study = describe_study(workers[0].site, settings)

    judged = judge_quality(Hospitals(InProcessLink(workers), study, workers[0].site.schema, settings, names))

    assert (set(judged.reports), judged.failed) == (set(names.values()), {})
    assert all(report is not None and report.grade != "red" for report in judged.reports.values())
    if cohort == "heart_disease":  # its cholesterol of 0 was not measured, as its source says
        assert ("missing-values", "static", "amber") in found(judged.reports["switzerland"])
