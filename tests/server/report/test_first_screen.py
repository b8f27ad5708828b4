import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from server.report.content import RunContent, read_run
from server.report.first_screen import FirstScreen, describe_first_screen, describe_slope
from server.report.page import WORDS_FILES
from shared_model.evaluation.metrics import Metrics
from shared_model.pages.wording import Words
from tests.server.report.run_folders import (
    change,
    metrics,
    modality_entry,
    scored_part,
    write,
    write_failed_run,
    write_run,
    write_suppressed_run,
)

WORDS = Words(*WORDS_FILES)


def _screen(path: Path) -> FirstScreen:
    return describe_first_screen(read_run(path), WORDS)


def _tile(screen: FirstScreen, label: str) -> tuple[str, str, str]:
    (tile,) = (tile for tile in screen.tiles if tile.label == label)
    return tile.value, tile.beside, tile.note


def test_first_screen_tells_hospitals_patients_deaths_and_auc_with_its_interval(tmp_path: Path) -> None:
    screen = _screen(write_run(tmp_path / "run"))

    assert screen.title == "Death after hip fracture"
    assert screen.subtitle == "Run run: completed"
    assert _tile(screen, "Hospitals")[0] == "3"
    assert _tile(screen, "Test patients")[0] == "400"
    assert _tile(screen, "Deaths") == ("40", "", "10.0% of the test patients")
    value, beside, note = _tile(screen, "AUC")
    assert (value, beside) == ("0.78", "95% CI 0.70 to 0.84")
    assert "in 78 of 100 pairs, a tie counted half." in note


def test_calibration_in_words_rests_on_expected_and_observed_deaths_and_the_slope(tmp_path: Path) -> None:
    # 200 patients at 4 % and 200 at 12 % are 32 expected deaths; 40 were observed, so 32 / 40 = 0.8 is too low.
    value, _, note = _tile(_screen(write_run(tmp_path)), "Calibration")

    assert value == "Risks are too low on average, but too extreme"
    assert note.startswith("32.0 deaths expected, 40 observed.")
    assert "Slope 0.62 (95% CI 0.36 to 0.88): below 1" in note
    assert "hance" not in note


def test_calibration_that_chance_may_explain_is_said_to_be_so(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    ends = {"calibration_slope_ci": [0.2, 1.04], "calibration_intercept_ci": [-0.01, 0.83]}
    write(run, "metrics.json", {"test": {**scored_part(["east"], ["east"]), "pooled": {**metrics(400, 40), **ends}}})

    value, _, note = _tile(_screen(run), "Calibration")

    assert value == "Risks may be too low on average, and may be too extreme"
    assert note.startswith("32.0 deaths expected, 40 observed. Chance alone may explain the difference. Slope 0.62")
    assert note.endswith("Chance alone may explain it: the interval holds 1.")


@pytest.mark.parametrize(
    ("ends", "told", "said"),
    [
        ([-0.42, 0.56], "May be right on average", "intercept 0.07 (95% CI -0.42 to 0.56), where 0 is right."),
        ([-0.02, 0.12], "May be right on average", "intercept 0.07 (95% CI -0.02 to 0.12), where 0 is right."),
        ([-0.02, 0.09], "Right on average", ""),
    ],
)
def test_calibration_is_said_to_be_right_only_where_its_interval_says_so_too(
    ends: list[float], told: str, said: str, tmp_path: Path
) -> None:
    run = write_run(tmp_path)  # 32 deaths are expected
    row = {**metrics(400, 33), "calibration_intercept": 0.07, "calibration_intercept_ci": ends}
    write(run, "metrics.json", {"test": {**scored_part(["east"], ["east"]), "pooled": row}})

    value, _, note = _tile(_screen(run), "Calibration")

    assert value.startswith(told)
    assert said in note
    assert ("intercept" in note) == bool(said)


def test_run_of_a_version_without_intervals_of_calibration_is_judged_by_its_numbers(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    kept = {"auc_ci", "auc_within_ci"}
    row = {key: value for key, value in metrics(400, 40).items() if not key.endswith("_ci") or key in kept}
    write(run, "metrics.json", {"test": {**scored_part(["east"], ["east"]), "pooled": row}})

    value, _, note = _tile(_screen(run), "Calibration")

    assert value == "Risks are too low on average, but too extreme"
    assert "Slope 0.62: below 1" in note


@pytest.mark.parametrize(
    ("slope", "ends", "said"),
    [
        (None, None, "No calibration slope can be given."),
        (-0.1, (-0.3, 0.1), "Slope -0.10 (95% CI -0.30 to 0.10): higher risks do not go with more events."),
        (0.89, None, "Slope 0.89: below 1, high risks are told too high and low ones too low."),
        (1.0, (0.6, 1.4), "Slope 1.00 (95% CI 0.60 to 1.40), where 1 is right."),
        (1.11, None, "Slope 1.11: above 1, high risks are told too low and low ones too high."),
        (
            1.11,
            (0.9, 1.32),
            (
                "Slope 1.11 (95% CI 0.90 to 1.32): above 1, high risks are told too low and low ones too high. "
                "Chance alone may explain it: the interval holds 1."
            ),
        ),
    ],
)
def test_slope_is_told_with_its_meaning(slope: float | None, ends: tuple[float, float] | None, said: str) -> None:
    row = TypeAdapter(Metrics).validate_python(metrics(400, 40))
    assert describe_slope(replace(row, calibration_slope=slope, calibration_slope_ci=ends), WORDS) == said


def test_few_deaths_and_an_interval_that_holds_chance_are_cautioned(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    part = scored_part(["east"], ["east"])
    write(run, "metrics.json", {"test": {**part, "pooled": {**metrics(400, 40), "auc_ci": [0.45, 0.7]}}})

    cautions = " ".join(_screen(run).cautions)

    assert _tile(_screen(run), "AUC")[2].startswith("May be no better than chance")
    assert "40 deaths: with fewer than 100 deaths or 100 survivors" in cautions
    assert "The interval of the AUC (0.45 to 0.70) holds 0.5" in cautions


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("died", "60 survivors: with fewer than 100 deaths or 100 survivors"),
        ("delirium", "60 non-events: with fewer than 100 events or 100 non-events"),
    ],
)
def test_few_patients_without_the_event_are_cautioned_by_their_number(tmp_path: Path, outcome: str, said: str) -> None:
    run = write_run(tmp_path, title="Hip fracture", outcome=outcome)
    write(run, "metrics.json", {"test": {**scored_part(["east"], ["east"]), "pooled": metrics(400, 340)}})

    assert said in " ".join(_screen(run).cautions)


def test_enough_deaths_and_a_good_auc_are_not_cautioned(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write(run, "metrics.json", {"test": {**scored_part(["east"], ["east"]), "pooled": metrics(2000, 150)}})

    assert not any("deaths" in caution or "AUC" in caution for caution in _screen(run).cautions)


def test_hospitals_accepted_although_red_and_shares_that_differ_between_hospitals_are_cautioned(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    red = {"grade": "red", "refused": False, "judged": 9, "by_outcome": True, "findings": []}
    change(run, "quality.json", hospitals={"east": red, "north": {**red, "refused": True}})
    change(
        run, "explanations.json", modalities={"static": modality_entry(0.7) | {"i2": 0.8}, "hip": modality_entry(0.3)}
    )

    cautions = _screen(run).cautions

    assert "Hospitals took part although their data quality is red: east." in cautions
    assert any("share of static differs between hospitals: chance does not explain 80%" in one for one in cautions)


def test_suppressed_run_says_so_in_words_and_shows_no_number(tmp_path: Path) -> None:
    screen = _screen(write_suppressed_run(tmp_path))

    assert {tile.value for tile in screen.tiles if tile.label != "Hospitals"} == {"suppressed"}
    assert screen.bars == ()
    assert screen.shares_note == "Suppressed: too few patients, deaths or hospitals to tell."
    assert not any("other patients" in caution for caution in screen.cautions)


def test_failed_run_tells_its_reason_and_that_there_are_no_results(tmp_path: Path) -> None:
    screen = _screen(write_failed_run(tmp_path, reason="round 1 (fusion): expected answers of at least 3 hospitals"))

    assert screen.failure == "round 1 (fusion): expected answers of at least 3 hospitals"
    assert _tile(screen, "AUC") == ("not available", "", "The run did not come to its test.")
    assert screen.shares_note == "Not available: the run did not come to its explanation."


def test_run_that_failed_before_the_handshake_has_a_first_screen() -> None:
    screen = describe_first_screen(RunContent("run", "failed", "nobody came"), WORDS)

    assert screen.title.startswith("Study unknown")
    assert screen.failure == "nobody came"


@pytest.mark.parametrize(
    ("title", "outcome", "label"),
    [
        ("Coronary disease at angiography", "disease", "Events"),
        ("Hip fracture", "died", "Deaths"),
        ("30-day mortality", "outcome", "Deaths"),
        ("Hip fracture", "death_30d", "Deaths"),
        ("A diet for the studied", "weight", "Events"),
        ("Hip fracture", "exitus", "Deaths"),
        ("Hip fracture", "deceased30", "Deaths"),
        ("Fatal outcome", "outcome", "Deaths"),
        ("Readmission or death", "outcome", "Events"),
        ("Readmission or death", "died", "Events"),
        ("Patients who did not die", "outcome", "Events"),
        ("Hip fracture", "survived_30d", "Events"),
        ("Survival after hip fracture", "death", "Events"),
        ("Missed deadlines", "outcome", "Events"),
        ("Delirium before death", "delirium", "Events"),
    ],
)
def test_events_are_called_deaths_only_where_the_study_says_so(
    tmp_path: Path, title: str, outcome: str, label: str
) -> None:
    screen = _screen(write_run(tmp_path, title=title, outcome=outcome))

    assert _tile(screen, label)[0] == "40"


def test_excluded_hospitals_and_those_missing_in_the_test_are_counted(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    change(run, "config.json", excluded={"west": "another schema"})
    part = scored_part(["east", "north"], ["east"])
    write(run, "metrics.json", {"test": {**part, "failed": {"south": "no answer"}}})

    screen = _screen(run)

    assert _tile(screen, "Hospitals")[2] == "took part; the test part was answered by 2. Refused or excluded: 1 (west)."
    assert "1 hospitals did not answer in the test: south." in screen.cautions


def test_hospitals_missing_in_the_explanation_are_cautioned(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    change(run, "explanations.json", failed={"south": "out of memory"}, spread_failed={"north": "no answer"})

    cautions = _screen(run).cautions

    alone = "It is of the other hospitals' patients alone."
    assert f"1 hospitals did not answer for the explanation: south. {alone}" in cautions
    assert "1 hospitals did not answer for the spread of shares between hospitals: north." in cautions


def test_hospital_that_left_before_the_run_was_resumed_is_counted(tmp_path: Path) -> None:
    run = write_run(tmp_path, hospitals=["east", "north", "south", "west"])
    roster = json.loads((run / "config.json").read_text())["roster"]
    change(run, "config.json", roster=roster[:3])  # the rounds asked west, too
    write(run, "metrics.json", {"test": scored_part(["east", "north", "south"], ["east"])})

    tile = _tile(_screen(run), "Hospitals")

    assert tile[0] == "3"
    assert tile[2].endswith("all answered in the test. 1 more took part before the run was resumed without them.")


@pytest.mark.parametrize(("events", "told"), [(33, "May be right on average"), (200, "Right on average")])
def test_limits_of_calibration_in_the_large_are_of_the_ratio_not_of_the_log_odds(
    events: int, told: str, tmp_path: Path
) -> None:
    """Half of the patients have the event: a shift of the log odds by 0.15 changes the expected events by 7 %."""
    run = write_run(tmp_path)
    ends = {"calibration_intercept": 0.02, "calibration_intercept_ci": [-0.15, 0.15]}
    part = scored_part(["east"], ["east"])
    part["curves"]["calibration"] = {"predicted": [events / 400], "observed": [events / 400], "n": [400.0]}
    write(run, "metrics.json", {"test": {**part, "pooled": {**metrics(400, events), **ends}}})

    assert _tile(_screen(run), "Calibration")[0].startswith(told)


def test_folds_are_told_and_take_the_study_from_the_first_of_them(tmp_path: Path) -> None:
    write_run(tmp_path / "all" / "fold-2")
    pooled = {"pooled": metrics(400, 40), "sites": {}, "curves": {}}
    write(tmp_path / "all", "metrics.json", {"folds": [2, 3], "test": pooled})
    write(tmp_path / "all", "status.json", {"state": "completed", "reason": ""})

    screen = _screen(tmp_path / "all")

    assert screen.title == "Death after hip fracture"
    assert "predictions of folds 2, 3 together" in screen.subtitle
    assert (
        _tile(screen, "Test patients")[2] == "of all hospitals together, each scored by the model that never saw them"
    )
    assert screen.shares_note == "Each fold has an explanation of its own, in its own run folder."


def test_refused_hospital_is_named_with_its_reason(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    finding = {"check": "short-cut", "modality": "hip", "item": "row 3", "value": 0.91, "limit": 0.85, "grade": "red"}
    red = {"grade": "red", "refused": True, "judged": 9, "by_outcome": True, "findings": [finding]}
    change(run, "quality.json", hospitals={"west": red})
    change(run, "config.json", excluded={"west": "data quality", "south-west": "schema: another one."})

    cautions = _screen(run).cautions

    assert any(
        one.startswith(
            "west was refused, and its patients, whose number no message tells, are in none of these numbers"
        )
        and "short-cut of hip, row 3, 0.91" in one
        for one in cautions
    )
    assert any(one.startswith("south-west took no part") and "schema: another one" in one for one in cautions)


@pytest.mark.parametrize(
    ("settings", "is_told"),
    [
        ({"image-weights": "", "image-training": "fixed"}, True),
        ({"image-weights": "resnet18.pt", "image-training": "fixed"}, False),
        ({"image-weights": "", "image-training": "trained"}, False),
        ({"image-weights": "", "image-training": "fixed", "modalities": "static"}, False),
    ],
)
def test_encoder_that_nobody_trained_is_called_that(tmp_path: Path, settings: dict[str, str], *, is_told: bool) -> None:
    run = write_run(tmp_path)
    known = json.loads((run / "config.json").read_text())["settings"]
    change(run, "config.json", settings=known | {"image-encoder": "resnet18", "image-embedding": 16} | settings)

    said = any(
        "go through ResNet-18 with random weights, never trained; 16 principal components of its output" in caution
        for caution in _screen(run).cautions
    )

    assert said == is_told
