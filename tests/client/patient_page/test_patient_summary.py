"""The first screen of a patient's page: the risk, where it stands, what moves it, in words and bars."""

import copy
from typing import Any

import numpy as np
import pytest

from client.patient_page.content import read_explanation
from client.patient_page.effects import Scale
from client.patient_page.page import page_words
from client.patient_page.sections.summary import list_bars, list_named
from tests.client.finished_run import FinishedRun
from tests.client.patient_page.explained_patients import (
    parse,
)
from tests.client.patient_page.parsed_page import ParsedPage


def _risk(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def test_page_shows_the_risk_of_the_explanation(content: dict[str, Any], page: ParsedPage) -> None:
    risk, base = content["prediction"]["probability"], _risk(content["views"]["common"]["base_logit"])

    assert f"the model predicts a risk of {100 * risk:.1f}%" in page.text
    assert f"reference patients is {100 * base:.1f}%" in page.text


def test_place_in_the_cohort_counts_lower_risks(content: dict[str, Any], finished: FinishedRun) -> None:
    changed = copy.deepcopy(content)
    risk = changed["prediction"]["probability"]
    changed["cohort"]["risks"] = [risk / 3, risk / 2, risk, (1 + risk) / 2]

    assert "higher than 2, equal to 1 of 4" in parse(finished, changed).text


def test_patient_of_the_training_part_comes_with_a_caution(finished: FinishedRun, content: dict[str, Any]) -> None:
    for part, caution in (("train", True), ("val", False), ("test", False)):
        changed = content | {"part_of_run": part}
        assert ("The model has learned from this patient, whose outcome it knew" in parse(finished, changed).text) == (
            caution
        )


def test_sentence_names_nothing_whose_direction_is_uncertain(content: dict[str, Any]) -> None:
    changed = copy.deepcopy(content)
    for modality in changed["views"]["common"]["modalities"]:
        modality["presence"] = 0.0
        for feature in modality["features"]:
            feature["se"] = abs(feature["phi"])

    raising, lowering = list_named(read_explanation(changed).views["common"], page_words())

    assert (raising, lowering) == ([], [])


def test_sentence_names_the_direction_of_each_feature(content: dict[str, Any]) -> None:
    view = content["views"]["common"]
    phi = {one["name"]: one["phi"] for modality in view["modalities"] for one in modality["features"]}
    phi |= {f"{modality['name']}: being there": modality["presence"] for modality in view["modalities"]}

    raising, lowering = list_named(read_explanation(content).views["common"], page_words())

    assert raising or lowering
    for names, sign in ((raising, 1), (lowering, -1)):
        for name in names:
            assert sign * phi.get(name.partition(" (")[0], phi["image"]) > 0


def test_sentence_names_the_presence_of_a_modality_where_that_is_largest(content: dict[str, Any]) -> None:
    changed = copy.deepcopy(content)
    hip = next(one for one in changed["views"]["common"]["modalities"] if one["name"] == "hip")
    hip["presence"] = 9.0

    raising, _ = list_named(read_explanation(changed).views["common"], page_words())

    assert raising == ["hip: being there"]


def test_sentence_names_a_missing_value_without_an_empty_reference(content: dict[str, Any]) -> None:
    changed = copy.deepcopy(content)
    feature = next(one for one in changed["views"]["common"]["modalities"][0]["features"] if one["kind"] != "number")
    feature |= {"value": None, "phi": 9.0, "se": 0.0}

    raising, _ = list_named(read_explanation(changed).views["common"], page_words())

    assert raising == [f"{feature['name']} (missing)"]


def test_bars_of_the_first_screen_lead_from_the_reference_to_the_prediction(content: dict[str, Any]) -> None:
    view = read_explanation(content).views["common"]

    bars = list(list_bars(view, page_words(), scale=Scale(1.0)))

    effects = [float(bar.effect.partition(",")[0]) for bar in bars]
    rounding = 0.0005 * len(bars) + 1e-6
    assert view.base_logit + sum(effects) == pytest.approx(content["prediction"]["logit"], abs=rounding)
    assert [abs(effect) for effect in effects] == sorted((abs(effect) for effect in effects), reverse=True)
    directions = ["none" if abs(one) < 0.01 else "raises" if one > 0 else "lowers" for one in effects]
    assert [bar.direction for bar in bars] == directions


def test_first_screen_does_not_take_the_bend_of_the_risk_for_an_effect(
    finished: FinishedRun, content: dict[str, Any]
) -> None:
    """Kinds of data add nothing in log odds, while the mean of risks is above the risk at the mean log odds."""
    changed = copy.deepcopy(content)
    view = changed["views"]["common"]
    view["base_logit"] = changed["prediction"]["logit"]
    view["base_probability"] = changed["prediction"]["probability"] + 0.25
    for modality in view["modalities"]:
        modality |= {"phi": 0.0, "presence": 0.0, "phi_probability": -0.25 / len(view["modalities"])}
        for feature in modality["features"]:
            feature["phi"] = 0.0

    page = parse(finished, changed)

    risk = f"{100 * changed['prediction']['probability']:.1f}%"
    assert f"predicts a risk of {risk}; the risk at the mean log odds" in page.text
    assert f"reference patients is {risk}" in page.text
    assert "no single feature moves the predicted risk clearly" in page.text
    bars = list(list_bars(read_explanation(changed).views["common"], page_words(), scale=Scale(0.0)))
    assert {bar.length for bar in bars} == {0.0}
    assert {bar.effect for bar in bars} == {"0.000, no effect on this prediction"}


def test_page_does_not_call_the_risk_calibrated(finished: FinishedRun, content: dict[str, Any]) -> None:
    text = parse(finished, content | {"outcome": "outcome"}).text

    assert "calibrated by the model" not in text
    assert "calibrated risks" not in text
    assert "not recalibrated for this hospital" in text
    assert "outcome outcome" not in text
