import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from client.patient.case import open_case
from client.patient.cohort_risks import unseen_risks
from client.patient.explanation import effect_sizes, explain_patient
from client.patient.run_evidence import gather_evidence
from shared_model.config import Scalar
from shared_model.errors import SettingsError
from shared_model.shapley.exact import explain_modalities
from shared_model.splits import split_patients
from tests.client.finished_run import FinishedRun, finish_run

PATIENT = "east-004"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return finish_run(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def explained(finished: FinishedRun) -> dict[str, Any]:
    return _explain(finished, PATIENT)


def _explain(finished: FinishedRun, patient: str) -> dict[str, Any]:
    run, site = finished.model(), finished.site()
    cohort = unseen_risks(run, site)
    return explain_patient(
        run,
        site,
        patient,
        evidence=gather_evidence(run, site),
        cohort=cohort,
        image_references=3,
        series_references=5,
    )


def _patient_lacking(finished: FinishedRun, modality: str) -> str:
    patients = finished.site().patients
    return patients.patient_ids[int(np.flatnonzero(~patients.present[modality])[0])]


def _modalities(content: dict[str, Any], view: str) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in content["views"][view]["modalities"]}


def _sum(table: list[list[float]]) -> float:
    return float(np.sum(table))


@pytest.mark.parametrize("view", ["common", "local"])
def test_modalities_sum_to_the_prediction(explained: dict[str, Any], view: str) -> None:
    total = sum(entry["phi"] for entry in explained["views"][view]["modalities"])

    base = explained["views"][view]["base_logit"]
    assert total == pytest.approx(explained["prediction"]["logit"] - base, abs=1e-6)


@pytest.mark.parametrize("view", ["common", "local"])
def test_features_and_presence_sum_to_their_modality(explained: dict[str, Any], view: str) -> None:
    for entry in _modalities(explained, view).values():
        inside = sum(feature["phi"] for feature in entry["features"])
        assert inside + entry["presence"] == pytest.approx(entry["phi"], abs=1e-10)


def test_features_have_the_values_of_the_patients_row(finished: FinishedRun, explained: dict[str, Any]) -> None:
    table = pd.read_csv(finished.cohort / "east" / "patients.csv", dtype={"asa": str}).set_index("patient_id")

    features = {feature["name"]: feature for feature in _modalities(explained, "common")["static"]["features"]}

    row: Any = table.loc[PATIENT]
    assert features["age"]["value"] == pytest.approx(float(row["age"]), abs=1e-5)
    assert features["age"]["unit"] == "years"
    assert (features["male"]["value"], features["asa"]["value"]) == (float(row["male"]), row["asa"])


def test_summaries_of_vital_signs_are_in_the_channels_unit(finished: FinishedRun, explained: dict[str, Any]) -> None:
    site = finished.site()
    raw = site.patients.raw["vitals"][site.patients.patient_ids.index(PATIENT)]

    features = {feature["name"]: feature for feature in _modalities(explained, "common")["vitals"]["features"]}

    assert features["hr mean"]["value"] == pytest.approx(float(np.nanmean(raw[:, 0])), rel=1e-4)
    assert features["hr measured"]["value"] == pytest.approx(float(np.mean(~np.isnan(raw[:, 0]))))
    assert features["time pattern"]["value"] is None


def test_pixels_sum_to_the_value_of_the_image_against_the_chosen_references(explained: dict[str, Any]) -> None:
    image = explained["images"]["hip"]

    assert image["references"] == 3
    assert image["residual"] < 1e-3
    assert _sum(image["pixels"]) == pytest.approx(image["phi_having"] + image["subset_gap"], rel=1e-3, abs=1e-7)


def test_value_against_all_references_is_that_of_the_local_view(explained: dict[str, Any]) -> None:
    local = _modalities(explained, "local")

    assert explained["images"]["hip"]["phi"] == pytest.approx(local["hip"]["phi"], abs=1e-12)
    assert explained["series"]["vitals"]["phi"] == pytest.approx(local["vitals"]["phi"], abs=1e-12)


def test_segments_and_cells_with_pattern_give_the_same_sum(explained: dict[str, Any]) -> None:
    series = explained["series"]["vitals"]
    inside = _sum(series["cells"]["phi"]) + sum(series["pattern"]["phi"])

    expected = series["phi_having"] + series["subset_gap"]
    assert _sum(series["segments"]["phi"]) == pytest.approx(expected, abs=1e-6)
    assert inside == pytest.approx(expected, rel=0.03, abs=1e-6)
    assert series["cells"]["residual"] <= 0.01


def test_every_time_and_channel_has_a_cell(explained: dict[str, Any]) -> None:
    series = explained["series"]["vitals"]

    assert np.shape(series["cells"]["phi"]) == (len(series["time"]), len(series["channels"]))
    assert np.shape(series["measured"]) == np.shape(series["cells"]["phi"])


def test_missing_modality_is_labelled_as_the_effect_of_not_having_it(finished: FinishedRun) -> None:
    content = _explain(finished, _patient_lacking(finished, "hip"))

    entry = _modalities(content, "common")["hip"]
    assert (entry["present"], entry["meaning"], entry["features"]) == (False, "effect of not having it", [])
    assert content["images"] == {}
    assert {"modality": "hip", "feature": None, "phi": entry["phi"]} in content["missing"]


def test_same_patient_gives_the_same_content(finished: FinishedRun, explained: dict[str, Any]) -> None:
    assert json.dumps(_explain(finished, PATIENT)) == json.dumps(explained)


def test_part_of_the_run_is_told(finished: FinishedRun) -> None:
    site = finished.site()
    split = site.split(finished.model().settings)

    first = {part: site.patients.patient_ids[rows[0]] for part, rows in vars(split).items()}
    parts = {part: _explain(finished, patient)["part_of_run"] for part, patient in first.items()}

    assert parts == {"train": "train", "val": "val", "test": "test"}


def test_unknown_patient_is_refused_without_naming_others(finished: FinishedRun) -> None:
    with pytest.raises(SettingsError, match="expected one of its 60 patient ids, got another") as caught:
        _explain(finished, "nobody")

    assert "east-" not in str(caught.value)


TRAINED = {"image_training": "trained"}
KEPT: list[dict[str, Scalar]] = [
    {"local_norm": True, **TRAINED},
    {"local_head": True},
    {"local_norm": True, "local_head": True, **TRAINED},
]


@pytest.fixture(scope="module", params=KEPT, ids=" ".join)
def kept_at_home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return finish_run(tmp_path_factory.mktemp("kept"), **request.param, rounds_joint=1, explain="modalities")


def test_model_finds_what_stays_at_home_in_the_hospitals_cache(kept_at_home: FinishedRun) -> None:
    content = _explain(kept_at_home, PATIENT)

    assert content["views"]["common"]["additivity_error"] < 1e-5


def test_model_is_refused_without_what_stays_at_home(kept_at_home: FinishedRun, tmp_path: Path) -> None:
    elsewhere = FinishedRun(kept_at_home.run, kept_at_home.cohort, tmp_path / "other-cache")

    with pytest.raises(SettingsError, match=r"(BatchNorm|head).*: expected this hospital's own, which never leave it"):
        elsewhere.model()


def test_part_of_the_run_is_not_told_where_the_hospital_cannot_know_it(finished: FinishedRun, tmp_path: Path) -> None:
    elsewhere = FinishedRun(finished.run, finished.cohort, tmp_path / "other-cache")

    assert _explain(elsewhere, PATIENT)["part_of_run"] is None


def test_patient_is_not_among_those_they_are_compared_with(finished: FinishedRun) -> None:
    site, model = finished.site(), finished.model()
    everyone = replace(model, settings=model.settings.model_copy(update={"background_rows": 1000}))
    row = int(site.split(model.settings).train[0])

    case = open_case(everyone, site, site.patients.patient_ids[row])

    assert sorted([*case.local_rows, row]) == site.split(model.settings).train.tolist()


def test_effects_that_are_only_rounding_have_no_size() -> None:
    phi = np.array([[1e-16, -3e-17], [0.0, -2e-9], [0.25, -0.5]])

    assert effect_sizes(phi).tolist() == [[0.0, 0.0], [0.0, 2e-9], [0.25, 0.5]]


def test_patient_for_whom_nothing_is_used_has_no_shares(finished: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def explain_with_noise(*args: Any, **changes: Any) -> Any:
        values = explain_modalities(*args, **changes)
        return replace(values, phi=1e-17 * np.sign(values.phi))

    monkeypatch.setattr("client.patient.explanation.explain_modalities", explain_with_noise)
    monkeypatch.setattr("client.patient.explanation.check_additivity", lambda *_, **__: np.zeros(1))

    for view in ("common", "local"):
        found = _modalities(_explain(finished, PATIENT), view)
        assert {entry["share"] for entry in found.values()} == {None}


def test_patient_without_others_in_training_is_explained_against_the_common_background(
    finished: FinishedRun, explained: dict[str, Any], tmp_path: Path
) -> None:
    patients, settings = finished.site().patients, finished.model().settings
    outcome = dict(zip(patients.patient_ids, patients.outcome, strict=True))

    def is_apart(other: str) -> bool:
        """Whether the split puts the other in another part than training; a hospital needs an event."""
        pair = sorted([PATIENT, other])
        outcomes = np.array([outcome[one] for one in pair])
        split = split_patients(pair, outcomes, fold=settings.fold, folds=settings.folds, seed=settings.seed)
        return bool(outcomes.any()) and pair.index(other) not in split.train

    other = next(one for one in patients.patient_ids if one != PATIENT and is_apart(one))
    cohort = shutil.copytree(finished.cohort, tmp_path / "cohort")
    for file in (cohort / "east").glob("*.csv"):
        table = pd.read_csv(file)
        table[table["patient_id"].isin([PATIENT, other])].to_csv(file, index=False)

    alone = _explain(FinishedRun(finished.run, cohort, tmp_path / "cache"), PATIENT)

    assert list(alone["views"]) == ["common"]
    assert alone["views"]["common"] == explained["views"]["common"]
    assert alone["prediction"] == explained["prediction"]
    assert [one["unavailable"] for one in (*alone["images"].values(), *alone["series"].values())] == [
        "no other patient of this hospital has this image",
        "no other patient of this hospital has this series",
    ]
