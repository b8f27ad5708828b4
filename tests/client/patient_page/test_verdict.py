"""The answer above all else on a patient's page: which prediction to distrust, and why."""

import copy
from typing import Any

import pytest

from client.patient_page.content import read_evidence, read_explanation
from client.patient_page.page import page_words, render_list
from client.patient_page.sections.verdict import Verdict, describe_verdict, list_doubts
from tests.client.finished_run import FinishedRun
from tests.client.patient_page.explained_patients import LACKING, explain, render
from tests.client.patient_page.parsed_page import ParsedPage

GOOD = {
    "n": 900,
    "events": 120,
    "auc": 0.8,
    "auc_ci": [0.76, 0.84],
    "calibration_slope": 1.02,
    "calibration_slope_ci": [0.9, 1.15],
}
WEAK = GOOD | {"auc": 0.606, "auc_ci": [0.455, 0.739]}
SUPPRESSED = dict.fromkeys(GOOD)
SHORT_CUT = {
    "hospital": "east",
    "check": "short-cut",
    "modality": "hip",
    "grade": "red",
    "items": ["row 3, column 2 of 16"],
    "value": 0.91,
    "accepted": True,
}


def _judge(content: dict[str, Any], *, hip: float = 0.5, others: float = 1.0, **evidence: Any) -> Verdict:
    """The verdict where hip films have `hip` log odds of the prediction and all else `others`."""
    changed = copy.deepcopy(content)
    modalities = changed["views"]["common"]["modalities"]
    for modality in modalities:
        modality["phi"] = hip if modality["name"] == "hip" else others / (len(modalities) - 1)
    changed["evidence"] = {
        "site": "east",
        "is_judged": True,
        "test": GOOD,
        "findings": [],
        "unused": [],
        "unproven": [],
        "untrained": [],
        "encoder": "ResNet-18",
    } | evidence
    return describe_verdict(read_explanation(changed), page_words())


def _has(verdict: Verdict, text: str) -> bool:
    return any(text in _plain(reason) for reason in verdict.reasons)


def _plain(text: str) -> str:
    return text.replace("\u2068", "").replace("\u2069", "")


def test_verdict_is_the_first_heading_after_the_patient(finished: FinishedRun, content: dict[str, Any]) -> None:
    html = render(finished, content)

    headings = html[html.index("<h1") :]
    assert headings.index("Can this prediction be trusted?") < headings.index("Predicted risk")


def test_verdict_distrusts_a_prediction_that_leans_on_films_with_a_short_cut(content: dict[str, Any]) -> None:
    verdict = _judge(content, hip=0.5, others=1.0, findings=[SHORT_CUT])

    headline = _plain(verdict.headline)
    assert headline.startswith("Do not trust this prediction. It leans on the hip films (33% of this patient's")
    assert "at this hospital they are red: a short cut" in headline
    assert verdict.mark == "red"
    assert _has(verdict, "The coordinator accepted the hospital in spite of it.")


def test_verdict_says_that_a_short_cut_flatters_the_model(content: dict[str, Any]) -> None:
    assert _has(_judge(content, findings=[SHORT_CUT]), "Short cuts flatter such numbers: patients of east")
    assert not _has(_judge(content), "flatter")


def test_verdict_lists_a_short_cut_that_the_prediction_does_not_lean_on(content: dict[str, Any]) -> None:
    verdict = _judge(content, hip=0.001, others=1.0, findings=[SHORT_CUT])

    assert verdict.headline.startswith("With care")
    assert _has(verdict, "Red, data quality of this hospital, the hip films")
    assert _has(verdict, "They have no effect on this prediction.")


def test_verdict_names_the_other_hospital_that_the_model_learned_a_short_cut_from(content: dict[str, Any]) -> None:
    verdict = _judge(content, findings=[SHORT_CUT | {"hospital": "north"}])

    assert "the model learned them from hospital north too, where they are red" in _plain(verdict.headline)


def test_verdict_distrusts_everything_where_outcomes_are_red(content: dict[str, Any]) -> None:
    verdict = _judge(content, findings=[SHORT_CUT | {"check": "prevalence", "modality": "", "items": []}])

    assert "outcomes of this hospital are red" in verdict.headline


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (WEAK, "the model may be no better than chance"),
        (SUPPRESSED, "how good the model is is not known"),
        (GOOD | {"calibration_slope": 0.4, "calibration_slope_ci": [0.1, 0.7]}, "its risks are too extreme"),
        (GOOD | {"calibration_slope": 3.0, "calibration_slope_ci": [1.4, 4.6]}, "its risks are too alike"),
        (GOOD, "With care: the model ranks patients better than chance"),
    ],
)
def test_verdict_says_how_good_the_model_is(content: dict[str, Any], test: dict[str, Any], said: str) -> None:
    assert said in _judge(content, test=test).headline


def test_verdict_gives_the_auc_with_its_interval_and_what_it_means(content: dict[str, Any]) -> None:
    verdict = _judge(content, test=WEAK)

    assert _has(verdict, "AUC 0.61 (95% CI 0.46 to 0.74) on 900 test patients of all hospitals, 120 with the event")
    assert _has(verdict, "The interval holds 0.5, which is chance")


def test_interval_that_begins_at_one_half_is_no_better_than_chance(content: dict[str, Any]) -> None:
    assert "no better than chance" in _judge(content, test=GOOD | {"auc_ci": [0.5, 0.9]}).headline


def test_wide_calibration_interval_is_not_called_right(content: dict[str, Any]) -> None:
    verdict = _judge(content, test=GOOD | {"calibration_slope": 0.4, "calibration_slope_ci": [-0.3, 1.1]})

    assert _has(verdict, "The interval is so wide")


def test_verdict_joins_a_red_finding_and_a_weak_model(content: dict[str, Any]) -> None:
    verdict = _judge(content, findings=[SHORT_CUT], test=WEAK)

    assert "Do not trust this prediction" in verdict.headline
    assert "Besides, the model as a whole may be no better than chance." in verdict.headline


def test_verdict_names_what_is_unused_and_untrained(content: dict[str, Any]) -> None:
    encoder = "ResNet-18 with random weights, never trained; 16 principal components of its output"
    verdict = _judge(content, unused=["hip"], unproven=["vitals"], untrained=["hip"], encoder=encoder)

    assert _has(verdict, "This model does not use: the hip films.")
    assert _has(verdict, "No evidence that they help, and yet the model uses them: the recordings of vitals.")
    assert _has(verdict, f"Seen only through a random network: the hip films go through {encoder}.")


def test_verdict_names_what_is_missing_of_the_patient(finished: FinishedRun) -> None:
    page = ParsedPage(render(finished, explain(finished, LACKING), LACKING))

    assert "the hip films. The prediction rests on the rest." in _plain(page.text)


def test_list_of_patients_says_what_speaks_against_all_predictions() -> None:
    known = {
        "site": "east",
        "is_judged": True,
        "unused": [],
        "unproven": [],
        "untrained": [],
        "encoder": "",
        "findings": [SHORT_CUT],
    }

    doubts = list_doubts(read_evidence(known | {"test": WEAK}), page_words())
    weak = render_list((), site="east", study="s", doubts=doubts)
    good = list_doubts(read_evidence(known | {"test": GOOD, "findings": []}), page_words())

    assert "the model may be no better than chance" in weak
    assert "hip: a short cut" in weak
    assert good == ()


def test_hospital_that_the_run_does_not_name_is_said(content: dict[str, Any]) -> None:
    verdict = _judge(content, is_judged=False)

    assert _has(verdict, "The run does not name a hospital east")
