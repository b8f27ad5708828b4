"""What the checklist and the model card tell of a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from server.report.content import read_run
from shared_model.pages.blocks import Marked
from tests.server.report.reading_sections import section_of, table_of, texts_of
from tests.server.report.run_folders import (
    change,
    write_run,
    write_suppressed_run,
)


def test_reading_section_tells_the_risk_of_the_background(tmp_path: Path) -> None:
    # The folder's base is log odds 0, so a risk of 1 / 2.
    assert "log odds 0.00 (a risk of 50.0%)" in texts_of(section_of(write_run(tmp_path), "reading"))


def test_checklist_has_27_items_and_marks_what_people_must_write(tmp_path: Path) -> None:
    rows = table_of(section_of(write_run(tmp_path), "tripod"), "tripod-ai").rows

    assert len({str(row[0]).rstrip("abcdefg") for row in rows}) == 27
    by_item = {row[0]: row for row in rows}
    assert by_item["17"][3:] == (Marked("authors", "unknown"), "to be written by the authors")
    assert by_item["21"][3:] == (
        Marked("the run", "good"),
        "Training: 1200 patients, 120 with the event. Test: 400 patients, 40 with the event.",
    )
    assert "AUC 0.78 (0.70 to 0.84); calibration slope 0.62 (0.36 to 0.88)" in str(by_item["23a"][4])


def _told(run: Path) -> dict[str, str]:
    """What the run tells of each item of the checklist."""
    return {str(row[0]): str(row[4]) for row in table_of(section_of(run, "tripod"), "tripod-ai").rows}


def _set(run: Path, **settings: Any) -> None:
    """Change settings of the run."""
    known = json.loads((run / "config.json").read_text())["settings"]
    change(run, "config.json", settings=known | {key.replace("_", "-"): value for key, value in settings.items()})


@pytest.mark.parametrize(
    ("folds", "parts"),
    [
        (5, "60% training, 20% validation and 20% test"),
        (10, "80% training, 10% validation and 10% test"),
        (3, "33.3% training, 33.3% validation and 33.3% test"),
    ],
)
def test_split_is_told_as_the_run_divided_its_patients(tmp_path: Path, folds: int, parts: str) -> None:
    run = write_run(tmp_path)
    _set(run, folds=folds)

    for item in ("5a", "12a"):
        assert parts in _told(run)[item]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "training: phase unimodal by fedavg, phase fusion by newton; head: linear;"),
        ({"strategy": "scaffold", "head": "8"}, "phase unimodal by scaffold, phase fusion by scaffold; head: 8;"),
        ({"local_head": True}, "phase unimodal by fedavg, phase fusion by fedavg; head: linear;"),
        (
            {"fusion": "late", "head": "64"},
            "phase unimodal by fedavg, phase fusion by fedavg; head: weighted mean of the modalities' own",
        ),
    ],
)
def test_training_is_told_as_each_phase_was_trained(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    run = write_run(tmp_path)
    _set(run, **settings)

    assert told in _told(run)["12c"]


def test_missing_values_are_told_as_the_preprocessing_fills_them(tmp_path: Path) -> None:
    told = _told(write_run(tmp_path))["11"]

    assert "numeric ones are marked and filled with the median" in told
    assert "yes/no ones are marked and filled with their mean" in told
    assert "of a category missing is a level of its own" in told
    assert "channel's mean" in told


def test_missing_values_of_a_study_without_series_are_told_without_them(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    schema = json.loads((run / "config.json").read_text())["schema"]
    change(run, "config.json", schema=schema | {"series": {}})

    assert "series" not in _told(run)["11"]


def test_training_counts_below_the_rule_are_not_told(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    change(run, "model.json", preprocessing='{"n": 1200, "events": 4}')

    assert read_run(run).training_counts() is None


def test_model_card_is_filled_where_the_run_knows_and_marked_where_not(tmp_path: Path) -> None:
    rows = {row[0]: row[1] for row in table_of(section_of(write_run(tmp_path), "card"), "model-card").rows}

    assert rows["hospitals"] == "3 hospitals took part, 0 were excluded."
    assert rows["intended use and users"] == Marked("to be written by the study's authors", "unknown")
    assert "2 static variables" in str(rows["inputs"])
    assert "image hip" in str(rows["inputs"])
    assert "ResNet-18 with random weights, never trained; 16 principal components" in str(rows["kind of model"])


def test_parts_that_hospitals_keep_are_said_not_to_be_in_the_run_folder(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    assert "hold architecture, preprocessing and weights" in _told(run)["22"]
    change(run, "model.json", kept_by_hospitals=["head", "norms"])

    card = {row[0]: row[1] for row in table_of(section_of(run, "card"), "model-card").rows}

    for told in (_told(run)["22"], str(card["version"])):
        assert "Not in the run folder: the fusion head and the BatchNorm layers." in told
        assert "each hospital's patients were scored with its own" in told
        assert "preprocessing and weights" not in told


def _by(run: Path) -> dict[str, str]:
    """Who fills in each item of the checklist."""
    return {
        str(row[0]): row[3].mark
        for row in table_of(section_of(run, "tripod"), "tripod-ai").rows
        if type(row[3]) is Marked
    }


def test_class_weight_is_no_whole_answer_to_class_imbalance(tmp_path: Path) -> None:
    run = write_run(tmp_path)

    assert _by(run)["13"] == "amber"
    assert "Why, and any recalibration afterwards: to be written by the authors." in _told(run)["13"]


def test_measures_of_a_suppressed_test_part_are_no_whole_answer(tmp_path: Path) -> None:
    assert {_by(write_run(tmp_path / "whole"))[item] for item in ("12e", "21")} == {"good"}

    suppressed = write_suppressed_run(tmp_path / "suppressed")

    assert {_by(suppressed)[item] for item in ("12e", "21")} == {"amber"}
    assert "suppressed" in _told(suppressed)["12e"]


def test_subgroups_are_told_only_where_their_shares_are(tmp_path: Path) -> None:
    assert "Shares by groups of: male." in _told(write_run(tmp_path / "whole"))["14"]
    unexplained = write_run(tmp_path / "unexplained")
    (unexplained / "explanations.json").unlink()

    for run in (unexplained, write_suppressed_run(tmp_path / "suppressed")):
        assert "Shares by groups" not in _told(run)["14"]


def test_spread_of_attributions_is_not_told_as_that_of_performance(tmp_path: Path) -> None:
    told = _told(write_run(tmp_path))

    assert "I²" not in told["23b"]
    assert "Performance per hospital is shown only where it was released: of 3 of 3 hospitals." in told["23b"]
    assert "I² of the shares of attribution, not of performance" in told["12d"]
