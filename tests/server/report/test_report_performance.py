"""How good the model is, as the report tells it."""

from pathlib import Path

import pytest

from server.report.sections.intervals import wilson_interval
from tests.server.report.reading_sections import figure_of, section_of, table_of, texts_of
from tests.server.report.run_folders import (
    scored_part,
    write,
    write_run,
)


def test_wilson_interval_is_the_known_one_of_five_in_fifty() -> None:
    assert wilson_interval(0.1, 50) == pytest.approx((0.0435, 0.2136), abs=5e-5)
    assert wilson_interval(0.0, 20)[0] == 0.0
    assert wilson_interval(1.0, 20)[1] == 1.0


def test_metrics_table_gives_an_interval_or_says_that_there_is_none(tmp_path: Path) -> None:
    rows = {row[0]: row[1:3] for row in table_of(section_of(write_run(tmp_path), "performance"), "metrics").rows}

    assert rows["AUC"] == ("0.781", "0.701 to 0.845")
    assert rows["AUC within hospitals"] == ("0.770", "0.690 to 0.833")
    assert rows["Brier score"] == ("0.067", "0.052 to 0.082")
    assert rows["calibration slope"] == ("0.620", "0.360 to 0.880")
    assert rows["calibration error"] == ("0.021", "none")


def test_metrics_that_are_exact_sums_are_told_apart_from_those_of_histograms(tmp_path: Path) -> None:
    told = texts_of(section_of(write_run(tmp_path), "performance"))

    assert "Brier score, log loss and AUC within hospitals are summed exactly" in told
    assert "All metrics are computed from summed histograms" not in told


def test_curves_of_the_run_folder_are_drawn_as_they_are(tmp_path: Path) -> None:
    section = section_of(write_run(tmp_path), "performance")

    roc = figure_of(section, "roc").data[0]
    assert (roc["x"], roc["y"]) == ([0.0, 0.2, 1.0], [0.0, 0.6, 1.0])
    assert figure_of(section, "calibration").table.rows[0][:3] == (0.04, 0.05, 200.0)
    decision = figure_of(section, "decision").caption
    better = "At the 3 evaluated thresholds between 5.0% and 20.0% the model's net benefit is estimated the highest"
    assert better in decision
    assert "without an interval: differences may be chance" in decision


def test_decision_curve_that_is_never_better_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    part = scored_part(["east"], ["east"])
    part["curves"]["decision"]["model"] = [0.05, -0.01, -0.02]
    write(run, "metrics.json", {"test": part})

    assert "At no evaluated threshold" in figure_of(section_of(run, "performance"), "decision").alt


def test_decision_curve_that_is_better_here_and_there_names_no_range(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    part = scored_part(["east"], ["east"])
    part["curves"]["decision"]["model"] = [0.07, -0.01, 0.01]
    write(run, "metrics.json", {"test": part})

    caption = figure_of(section_of(run, "performance"), "decision").caption
    assert "At 2 of the 3 evaluated thresholds" in caption


def test_decision_curve_that_is_better_once_names_that_threshold(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    part = scored_part(["east"], ["east"])
    part["curves"]["decision"]["model"] = [0.05, 0.01, -0.02]
    write(run, "metrics.json", {"test": part})

    assert "At one evaluated threshold of 3, 10.0%" in figure_of(section_of(run, "performance"), "decision").caption


def test_run_without_curves_says_that_there_are_none(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write(run, "metrics.json", {"test": {**scored_part(["east"], ["east"]), "curves": {}}})

    assert "The run folder holds no curves." in texts_of(section_of(run, "performance"))
