import copy
import re
from typing import Any

import numpy as np
import pytest

from client.patient.case import open_case
from client.patient_page.content import read_explanation
from client.patient_page.figures import LOWERS, RAISES
from client.patient_page.page import page_words
from client.patient_page.sections.cohort import bin_edges, count_place
from client.patient_page.sections.features import describe_features
from client.patient_page.sections.modalities import describe_modalities
from client.patient_page.waterfall import build_waterfall, list_steps
from shared_model.errors import StudyError
from shared_model.pages.blocks import list_figures
from tests.client.finished_run import FinishedRun
from tests.client.patient_page.explained_patients import (
    HOSTILE,
    LACKING,
    PATIENT,
    explain,
    parse,
    render,
    with_hostile_names,
)
from tests.client.patient_page.parsed_page import ParsedPage

VIEWS = ("common", "local")


@pytest.mark.parametrize("view", VIEWS)
def test_numbers_of_the_waterfall_add_up_as_shown(content: dict[str, Any], page: ParsedPage, view: str) -> None:
    _, base, *steps, end = [row[3] for row in page.tables[f"waterfall-{view}"]]

    thousandths = [round(1000 * float(text)) for text in (base, *steps)]
    assert sum(thousandths) == round(1000 * float(end))
    assert round(1000 * float(end)) == round(1000 * content["prediction"]["logit"])


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("n", [0, 1, 3, 100])
def test_rest_of_the_waterfall_is_what_is_not_shown(content: dict[str, Any], view: str, n: int) -> None:
    explained, words = read_explanation(content), page_words()
    phi = sorted((step.phi for step in list_steps(explained.views[view], words)), key=abs)  # type: ignore[index]

    fall = build_waterfall(explained, explained.views[view], words, n=n)  # type: ignore[index]

    hidden = phi[: max(len(phi) - n, 0)]
    assert fall.n_rest == len(hidden)
    assert fall.rest / 1000 == pytest.approx(sum(hidden), abs=(len(fall.shown) + 2) * 0.0005 + 1e-6)


def test_features_that_do_not_add_up_are_refused(finished: FinishedRun, content: dict[str, Any]) -> None:
    wrong = copy.deepcopy(content)
    wrong["views"]["local"]["modalities"][0]["features"][0]["phi"] += 0.05

    with pytest.raises(StudyError, match="features: expected to add up to the prediction"):
        render(finished, wrong)


def test_content_of_another_kind_is_refused(finished: FinishedRun, content: dict[str, Any]) -> None:
    wrong = copy.deepcopy(content)
    del wrong["prediction"]["logit"]

    with pytest.raises(StudyError, match=r"got at prediction\.logit: Field required"):
        render(finished, wrong)


def _compared_with(finished: FinishedRun) -> np.ndarray:
    """Rows of the hospital's other training patients, those of the local background."""
    case = open_case(finished.model(), finished.site(), PATIENT)
    assert set(case.local_rows.tolist()) <= set(case.site.split(case.run.settings).train.tolist()) - {case.row}
    return case.local_rows


def test_value_stands_beside_the_reference_with_its_unit(finished: FinishedRun, page: ParsedPage) -> None:
    site, others = finished.site(), _compared_with(finished)
    row = site.patients.patient_ids.index(PATIENT)
    ages = site.patients.numbers[others, 0].astype(float)
    low, median, high = np.quantile(ages, (0.25, 0.5, 0.75))

    shown = {cells[0]: cells for cells in page.tables["features-local"]}["age"]

    assert shown[1] == f"{site.patients.numbers[row, 0]:.4g} years"
    assert shown[2] == f"median {median:.4g} years (half between {low:.4g} and {high:.4g})"


def test_reference_of_a_binary_and_a_category_are_shares_of_the_others(
    finished: FinishedRun, content: dict[str, Any]
) -> None:
    site, others = finished.site(), _compared_with(finished)
    features = {one["name"]: one for one in content["views"]["local"]["modalities"][0]["features"]}

    male = features["male"]["reference"]
    asa = features["asa"]["reference"]

    assert male["levels"]["1"] == pytest.approx(float(site.patients.numbers[others, 1].mean()))
    assert male["n"] == len(others)
    levels = site.patients.levels[others, 0]
    assert asa["levels"] == pytest.approx({str(i + 1): float((levels == i).mean()) for i in range(3)})


def test_cohort_is_the_other_patients_whom_training_never_saw(finished: FinishedRun, content: dict[str, Any]) -> None:
    site = finished.site()
    test = site.split(finished.model().settings).test
    others = [site.patients.patient_ids[row] for row in test if site.patients.patient_ids[row] != PATIENT]

    risks = [explain(finished, patient)["prediction"]["probability"] for patient in others[:3]]

    assert content["cohort"]["part"] == "test"
    assert len(content["cohort"]["risks"]) == len(others)
    for risk in risks:
        assert np.min(np.abs(np.array(content["cohort"]["risks"]) - risk)) < 1e-6


@pytest.mark.parametrize("risks", [[0.001, 0.02], [0.4999, 0.5], [0.0, 1.0], [0.2] * 3])
def test_every_risk_is_in_a_bar(risks: list[float]) -> None:
    edges = bin_edges(risks)

    counts = np.histogram(risks, bins=edges)[0]
    assert counts.sum() == len(risks)
    assert len(counts) <= 25


def test_cohort_says_where_the_parts_are_not_known(finished: FinishedRun, content: dict[str, Any]) -> None:
    changed = copy.deepcopy(content)
    changed["cohort"]["part"] = changed["part_of_run"] = None

    text = parse(finished, changed).text

    assert "not known which of them training saw" in text
    assert "It is not known whether the model has learned from this patient." in text


def test_page_of_a_patient_without_others_in_training_has_the_common_view_alone(
    finished: FinishedRun, content: dict[str, Any]
) -> None:
    alone = content | {"views": {"common": content["views"]["common"]}}

    page = parse(finished, alone)

    assert "features-common" in page.tables
    assert "features-local" not in page.tables
    assert len(page.tables["modalities"]) == 1 + len(content["views"]["common"]["modalities"])


def test_missing_modality_and_value_are_said_in_words(finished: FinishedRun) -> None:
    content = explain(finished, LACKING)
    static = content["views"]["common"]["modalities"][0]["features"][0]
    static["value"] = None

    page = parse(finished, content, LACKING)

    assert "hip: this patient has none." in page.text
    assert not page.of("img")
    steps = {row[0]: row for row in page.tables["features-common"]}
    assert steps["no hip"][1] == "not there"
    assert steps[static["name"]][1] == "missing"
    assert ["all of hip", "hip"] in [row[:2] for row in page.tables["missing"]]


def test_image_without_attribution_is_shown_with_the_reason(finished: FinishedRun, content: dict[str, Any]) -> None:
    changed = copy.deepcopy(content)
    changed["images"]["hip"] = {"unavailable": "no other patient of this hospital has this image"}

    page = parse(finished, changed)

    assert [one.get("class") for one in page.of("img")] == ["picture"]
    assert "No heat map: no other patient of this hospital has this image." in page.text


def test_hostile_names_are_text(finished: FinishedRun, content: dict[str, Any], page: ParsedPage) -> None:
    hostile = parse(finished, with_hostile_names(content))

    assert hostile.text.count(HOSTILE) > 10
    assert len(hostile.of("script")) == len(page.of("script"))
    assert len(hostile.of("img")) == len(page.of("img"))
    assert not [name for _, attributes in hostile.elements for name in attributes if name.startswith("on")]


def test_page_asks_for_nothing_from_elsewhere(page: ParsedPage) -> None:
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "srcset"):
            target = attributes.get(name, "#")
            assert target.startswith(("#", "data:")), (tag, target)
    policy = next(one["content"] for one in page.of("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in re.findall(r"script-src [^;]*", policy)[0]


def test_page_says_that_it_stays_and_is_for_research(page: ParsedPage) -> None:
    assert "It stays at the hospital" in page.text
    assert "Research use only, not a medical device" in page.text
    assert "not causes" in page.text


def test_title_does_not_carry_the_patients_id(finished: FinishedRun, content: dict[str, Any]) -> None:
    title = re.findall(r"<title>(.*?)</title>", render(finished, content))

    assert title == ["One patient&#39;s predicted risk"]


def test_points_of_the_modalities_are_those_of_the_explanation(content: dict[str, Any], page: ParsedPage) -> None:
    rows = {(row[0], row[1]): row for row in page.tables["modalities"][1:]}
    for view, label in (
        ("common", "reference patients of all hospitals (synthetic)"),
        ("local", "other patients of this hospital"),
    ):
        for modality in content["views"][view]["modalities"]:
            row = rows[(modality["name"], label)]
            assert float(row[2]) == pytest.approx(modality["phi"], abs=0.00051)
            assert float(row[4].removesuffix(" points")) == pytest.approx(100 * modality["phi_probability"], abs=0.051)


def test_values_along_time_are_those_measured(content: dict[str, Any], page: ParsedPage) -> None:
    recording = content["series"]["vitals"]

    rows = page.tables["series-0-0"][1:]

    measured = [row[0] for row in recording["measured"]]
    shown = [None if row[1] == "not measured" else float(row[1]) for row in rows]
    assert shown == pytest.approx([None if value is None else float(f"{value:.4g}") for value in measured])
    assert [float(row[2]) for row in rows] == pytest.approx([row[0] for row in recording["cells"]["phi"]], rel=1e-2)


def test_event_that_was_given_is_listed_apart(finished: FinishedRun) -> None:
    site = finished.site()
    given = site.patients.raw["drugs"][:, 0] > 0
    patient = site.patients.patient_ids[int(np.flatnonzero(given)[0])]

    tables = parse(finished, explain(finished, patient), patient).tables["events-drugs"]

    assert [row[:2] for row in tables if row[0] in {"opioid", "insulin"}] == [["opioid", "yes"], ["insulin", "no"]]


def test_effects_in_percentage_points_come_with_a_note_on_the_curve(page: ParsedPage) -> None:
    assert "signs and their order can differ from those in log odds" in page.text
    assert page.tables["backgrounds"][0][2:4] == ["risk at their mean log odds", "mean of their predicted risks"]


def test_parts_of_a_recording_add_up_to_its_effect(content: dict[str, Any], page: ParsedPage) -> None:
    recording = content["series"]["vitals"]
    inside = recording["phi_having"] + recording["subset_gap"]
    exact = inside - float(np.sum(recording["cells"]["phi"])) - sum(recording["pattern"]["phi"])

    *parts, rest, whole = [round(1000 * float(row[1])) for row in page.tables["series-0-parts"][1:]]

    assert sum(parts) + rest == whole == round(1000 * recording["phi"])
    assert rest / 1000 == pytest.approx(exact, abs=0.0005 * (len(parts) + 1))
    shown = {row[0]: float(row[1]) for row in page.tables["series-0-parts"] if row[0].endswith("were measured")}
    expected = [round(phi, 3) for phi in recording["pattern"]["phi"]]
    assert list(shown.values()) == pytest.approx(expected, abs=1e-9)


def test_equal_risks_are_not_counted_as_higher_or_lower() -> None:
    assert count_place([0.25] * 58, 0.25) == (0, 58)
    assert count_place([0.25 - 1e-8, 0.25 + 1e-8, 0.2, 0.3], 0.25) == (1, 2)
    assert count_place([0.2, 0.3], 0.25) == (1, 0)


def test_page_does_not_claim_that_training_saw_the_patients_compared_with(page: ParsedPage) -> None:
    assert "other training patients" not in page.text
    assert "training may not have seen them all" in page.text


def test_colours_of_the_groups_are_not_those_of_lowers_and_raises(content: dict[str, Any]) -> None:
    section = describe_modalities(read_explanation(content), page_words())

    (figure,) = list_figures(section.blocks)
    colours = [trace["marker"]["color"] for trace in figure.data]  # type: ignore[index]
    assert len(set(colours)) == 2
    assert not {RAISES, LOWERS} & set(colours)


def test_numbers_beside_the_waterfall_have_room_on_a_narrow_page(content: dict[str, Any]) -> None:
    """On a page of 360 pixels the bars have 130; a number with its sign takes 40."""
    for figure in list_figures(describe_features(read_explanation(content), page_words()).blocks):
        low, high = figure.layout["xaxis"]["range"]  # type: ignore[index]
        ends = figure.data[0]["base"]
        assert 130 * (min(ends) - low) / (high - low) > 40  # type: ignore[call-overload]
