from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from server.report.cautions import SHARES_CAUTION
from server.report.content import read_run
from server.report.explained import ValueGroup
from server.report.page import WORDS_FILES, list_sections
from server.report.sections import groups
from server.report.sections.dependence import label_group
from server.report.sections.intervals import wilson_interval
from server.report.sections.training import describe_training
from shared_model.pages.blocks import Block, Figure, Folded, Grid, Marked, Notice, Section, Table, Text, list_figures
from shared_model.pages.wording import Words
from shared_model.shapley.strata import OUTCOME
from tests.server.report.run_folders import (
    SUPPRESSED,
    change,
    feature,
    modality_entry,
    scored_part,
    write,
    write_failed_run,
    write_run,
    write_suppressed_run,
)

WORDS = Words(*WORDS_FILES)


def _section(run: Path, name: str) -> Section:
    (section,) = (section for section in list_sections(read_run(run), WORDS) if section.name == name)
    return section


def _flat(blocks: tuple[Block, ...]) -> list[Block]:
    flat: list[Block] = []
    for block in blocks:
        flat.append(block)
        if isinstance(block, Folded):
            flat.extend(_flat(block.blocks))
        if isinstance(block, Grid):
            flat.extend(block.figures)
    return [*flat, *(block.table for block in flat if isinstance(block, Figure))]


def _figure(section: Section, name: str) -> Figure:
    (figure,) = (figure for figure in list_figures(section.blocks) if figure.name == name)
    return figure


def _table(section: Section, name: str) -> Table:
    (table,) = (block for block in _flat(section.blocks) if isinstance(block, Table) and block.name == name)
    return table


def _texts(section: Section) -> str:
    return " ".join(block.text for block in _flat(section.blocks) if isinstance(block, Text | Notice))


def test_wilson_interval_is_the_known_one_of_five_in_fifty() -> None:
    assert wilson_interval(0.1, 50) == pytest.approx((0.0435, 0.2136), abs=5e-5)
    assert wilson_interval(0.0, 20)[0] == 0.0
    assert wilson_interval(1.0, 20)[1] == 1.0


def test_metrics_table_gives_an_interval_or_says_that_there_is_none(tmp_path: Path) -> None:
    rows = {row[0]: row[1:3] for row in _table(_section(write_run(tmp_path), "performance"), "metrics").rows}

    assert rows["AUC"] == ("0.781", "0.701 to 0.845")
    assert rows["AUC within hospitals"] == ("0.770", "0.690 to 0.833")
    assert rows["Brier score"] == ("0.067", "0.052 to 0.082")
    assert rows["calibration slope"] == ("0.620", "0.360 to 0.880")
    assert rows["calibration error"] == ("0.021", "none")


def test_metrics_that_are_exact_sums_are_told_apart_from_those_of_histograms(tmp_path: Path) -> None:
    told = _texts(_section(write_run(tmp_path), "performance"))

    assert "Brier score, log loss and AUC within hospitals are summed exactly" in told
    assert "All metrics are computed from summed histograms" not in told


def test_curves_of_the_run_folder_are_drawn_as_they_are(tmp_path: Path) -> None:
    section = _section(write_run(tmp_path), "performance")

    roc = _figure(section, "roc").data[0]
    assert (roc["x"], roc["y"]) == ([0.0, 0.2, 1.0], [0.0, 0.6, 1.0])
    assert _figure(section, "calibration").table.rows[0][:3] == (0.04, 0.05, 200.0)
    decision = _figure(section, "decision").caption
    assert (
        "At the 3 evaluated thresholds between 5% and 20% the model's net benefit is estimated the highest" in decision
    )
    assert "without an interval: differences may be chance" in decision


def test_decision_curve_that_is_never_better_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    part = scored_part(["east"], ["east"])
    part["curves"]["decision"]["model"] = [0.05, -0.01, -0.02]
    write(run, "metrics.json", {"test": part})

    assert "At no evaluated threshold" in _figure(_section(run, "performance"), "decision").alt


def test_decision_curve_that_is_better_here_and_there_names_no_range(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    part = scored_part(["east"], ["east"])
    part["curves"]["decision"]["model"] = [0.07, -0.01, 0.01]
    write(run, "metrics.json", {"test": part})

    caption = _figure(_section(run, "performance"), "decision").caption
    assert "At 2 of the 3 evaluated thresholds" in caption


def test_decision_curve_that_is_better_once_names_that_threshold(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    part = scored_part(["east"], ["east"])
    part["curves"]["decision"]["model"] = [0.05, 0.01, -0.02]
    write(run, "metrics.json", {"test": part})

    assert "At one evaluated threshold of 3, 10%" in _figure(_section(run, "performance"), "decision").caption


def test_run_without_curves_says_that_there_are_none(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write(run, "metrics.json", {"test": {**scored_part(["east"], ["east"]), "curves": {}}})

    assert "The run folder holds no curves." in _texts(_section(run, "performance"))


def test_forest_plots_show_released_hospitals_alone_and_tables_name_the_suppressed(tmp_path: Path) -> None:
    run = write_run(tmp_path, hidden_hospitals=["north"])

    auc = _figure(_section(run, "performance"), "auc_by_hospital")
    assert auc.layout["yaxis"]["ticktext"] == ["all hospitals", "east", "south"]  # type: ignore[index]
    assert auc.table.rows[2] == ("north", *(["suppressed"] * 7))
    shares = _figure(_section(run, "importance"), "forest-0")
    assert shares.layout["yaxis"]["ticktext"] == [  # type: ignore[index]
        "all patients",
        "east",
        "south",
        "mean hospital",
        "next hospital",
    ]
    assert shares.table.rows[-1] == ("north", "suppressed", "suppressed")
    assert "Hospitals whose shares are not shown: 1." in _texts(_section(run, "importance"))


def test_shares_come_with_interval_and_prediction_interval_and_the_caution(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    change(run, "explanations.json", modalities={"static": modality_entry(0.75), "hip": modality_entry(0.25)})

    section = _section(run, "importance")

    figure = _figure(section, "shares")
    assert figure.table.rows[0][:6] == (
        "static",
        "75.0%",
        "72.0% to 78.0%",
        "75.0%",
        "72.0% to 78.0%",
        "69.0% to 81.0%",
    )
    assert figure.data[0]["x"] == [0.75, 0.25]
    assert figure.data[1]["error_x"]["array"] == pytest.approx([0.06, 0.06])  # type: ignore[index]
    assert SHARES_CAUTION in _texts(section)


def test_spread_that_may_not_be_told_is_not_drawn(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    change(run, "explanations.json", modalities={name: modality_entry(0.5, spread=False) for name in ("static", "hip")})

    figure = _figure(_section(run, "importance"), "shares")

    assert len(figure.data) == 1
    assert figure.table.rows[0][5] == "not available"
    rows = {row[0] for row in _table(_section(run, "withheld"), "withheld").rows}
    assert "spread between hospitals" in rows


def test_single_modality_is_told_without_interval_and_spread(tmp_path: Path) -> None:
    run = write_run(tmp_path, modalities=["static"])

    section = _section(run, "importance")

    assert not list_figures(section.blocks)
    assert "100% by construction" in _texts(section)
    assert "modality" in _table(section, "modalities").columns
    assert not any("share" in column for column in _table(section, "modalities").columns)
    assert "100% by construction" in _texts(_section(run, "groups"))
    card = {row[0]: str(row[1]) for row in _table(_section(run, "card"), "model-card").rows}
    assert "100% by construction" in card["what it looks at"]
    assert "I²" not in card["between hospitals"]


def test_model_that_uses_nothing_is_told_in_words(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    nothing = modality_entry(0.5) | {"share": None, "share_ci": None, "mean_abs": 0.0}
    change(run, "explanations.json", modalities={"static": nothing, "hip": nothing})

    section = _section(run, "importance")

    assert section.blocks == (Notice(WORDS("first.shares_unused")),)


def test_interactions_that_are_all_zero_are_told_in_words(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    pair = {"modalities": ["static", "hip"], "mean": 0.0, "mean_abs": 0.0}
    change(run, "explanations.json", interactions=[pair])

    assert "All pairwise interactions are 0" in _texts(_section(run, "importance"))


def test_features_have_units_groups_of_values_and_what_is_suppressed_in_words(tmp_path: Path) -> None:
    section = _section(write_run(tmp_path), "features")

    sizes = _figure(section, "sizes-0")
    assert sizes.table.rows[0][:5] == ("feature 0", "g/L", 400, 0.5, "0.45 to 0.55")
    assert sizes.table.rows[0][6] == "lowers the risk"
    effect = _figure(section, "dependence-0-0")
    assert effect.table.rows == (
        ("below 90 g/L", 150, 0.5, 0.05),
        ("90 to 120 g/L", 240, -0.5, 0.04),
        ("120 g/L or more", "suppressed", "suppressed", "suppressed"),
        ("missing", "suppressed", "suppressed", "suppressed"),
    )
    assert effect.data[0]["x"] == [0, 1]
    assert len(effect.layout["shapes"]) == 2  # type: ignore[arg-type]
    histogram = _table(section, "histogram-0-0")
    assert histogram.columns[1:] == ("below 0", "0 or more")
    assert histogram.rows[0] == ("below 90 g/L", 0, 150)
    assert "Suppressed, too few patients (1): rare." in _texts(section)


def test_overview_of_values_places_groups_from_low_to_high(tmp_path: Path) -> None:
    dots = _figure(_section(write_run(tmp_path, features=1, modalities=["static"]), "features"), "values-0").data[0]

    assert (dots["x"], dots["y"]) == ([0.5, -0.5], [0, 0])
    assert dots["marker"]["color"] == [0.0, 0.5]  # type: ignore[index]


def test_modality_whose_features_may_not_be_told_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    change(run, "explanations.json", features={"static": SUPPRESSED, "vitals": [feature("hr", 0.2)]})

    assert "Suppressed: too few hospitals have this modality." in _texts(_section(run, "features"))
    rows = {row[0]: row[2] for row in _table(_section(run, "withheld"), "withheld").rows}
    assert rows["features of a modality"] == "static"


def test_feature_whose_groups_are_withheld_has_no_curve(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    hidden = feature("male", 0.2) | {"groups": [], "histogram": SUPPRESSED}
    change(run, "explanations.json", features={"static": [hidden]})

    section = _section(run, "features")

    assert [figure.name for figure in list_figures(section.blocks)] == ["sizes-0"]
    assert "Groups of values are not shown" in _texts(section)


@pytest.mark.parametrize(
    ("group", "label"),
    [
        ({"range": [None, 1.5]}, "below 1.5 kg"),
        ({"range": [1.5, None]}, "1.5 kg or more"),
        ({"range": [1.5, 2.5]}, "1.5 to 2.5 kg"),
        ({"level": "missing"}, "missing"),
        ({"level": "all"}, "all"),
        ({"level": "III"}, "III"),
    ],
)
def test_group_of_values_is_named_with_its_unit(group: dict[str, Any], label: str) -> None:
    assert label_group(TypeAdapter(ValueGroup).validate_python(group), "kg", WORDS) == label


def test_groups_of_patients_name_yes_and_no_only_where_the_column_is_binary(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    group = {"n": 200, "events": 20, "modalities": {"static": modality_entry(1.0)}}
    strata = {"male": {"0": group, "1": SUPPRESSED}, "age": {"1": group}}
    change(run, "explanations.json", strata=strata)

    section = _section(run, "groups")

    assert [row[:2] for row in _table(section, "groups-0").rows] == [("no (0)", 200), ("yes (1)", "suppressed")]
    assert [row[0] for row in _table(section, "groups-1").rows] == ["1"]


def test_validation_is_drawn_at_the_rounds_that_made_its_model(tmp_path: Path) -> None:
    section = _section(write_run(tmp_path, rounds=3), "training")

    # Round 1 validates the model after no round; the phase's last line, which trains nothing, that after round 1.
    unimodal = _figure(section, "training-unimodal-loss")
    assert unimodal.data[0]["x"] == [0, 1]
    assert unimodal.data[0]["y"] == [0.295, 0.29]
    fusion = _figure(section, "training-fusion-loss")
    assert fusion.data[0]["x"] == [1, 2]
    assert fusion.data[1]["x"] == [2, 3]
    assert fusion.layout["shapes"][0]["x0"] == 3  # type: ignore[index]
    assert _figure(section, "training-unimodal-heads").data[0]["y"] == [0.9]


def test_rounds_table_names_who_did_not_answer_and_why(tmp_path: Path) -> None:
    table = _table(_section(write_failed_run(tmp_path, reason="no quorum"), "training"), "rounds")

    assert table.rows[0][2:4] == (
        "1 of 3",
        "north: no answer within 900 s; south: no answer within 900 s",
    )


def test_drift_tells_shares_after_each_explained_round(tmp_path: Path) -> None:
    section = _section(write_run(tmp_path, rounds=4, modalities=["static", "hip"]), "drift")

    assert [row[0] for row in _figure(section, "drift").table.rows] == ["2", "4"]
    assert _figure(section, "drift").table.rows[0][1:] == ("66.7%", "33.3%")
    assert _table(section, "drift-distances").rows[0][:4] == ("2", "4", "all hospitals", 0.1)


def test_drift_that_may_not_be_told_is_suppressed_in_words(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    line = json.loads((run / "rounds.jsonl").read_text().splitlines()[-1])
    line["explanation"] = {"shares": SUPPRESSED, "sites": {}}
    (run / "rounds.jsonl").write_text(json.dumps(line) + "\n")

    assert _texts(_section(run, "drift")).startswith("Suppressed")


def test_data_quality_gives_a_word_and_reasons_for_every_hospital(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    findings = [
        {"check": "level-shift", "modality": "static", "item": "age", "value": 1.2, "limit": 1.0, "grade": "amber"},
        {"check": "prevalence", "modality": "", "item": "", "value": None, "limit": 50.0, "grade": "red"},
    ]
    red = {"grade": "red", "refused": True, "findings": findings}
    change(run, "quality.json", hospitals={"east": red, "north": SUPPRESSED}, failed={"south": "no answer"})
    change(run, "config.json", excluded={"east": "data quality", "west": "another schema"})

    rows = _table(_section(run, "quality"), "data-quality").rows

    assert rows == (
        (
            "east",
            Marked("red", "red"),
            "refused",
            (
                "red: prevalence of the outcome, value suppressed (limit 50); amber: level-shift of static, age, 1.2 "
                "(limit 1)"
            ),
        ),
        ("north", Marked("not known", "unknown"), "took part", "suppressed: it may not be told of so few patients"),
        ("south", Marked("not known", "unknown"), "took part", "no answer"),
        ("west", Marked("not judged", "unknown"), "excluded", "another schema"),
    )


def test_withheld_section_states_the_rule_of_the_run_and_counts_what_it_hid(tmp_path: Path) -> None:
    section = _section(write_run(tmp_path, hidden_hospitals=["north"]), "withheld")

    assert "at least 10 patients, 5 events and 5 non-events; a sum joins at least 3 hospitals" in _texts(section)
    assert "By patients alone, with any number of events, are shown: groups of a feature's values" in _texts(section)
    reasons = {row[0]: row[3] for row in _table(section, "withheld").rows}
    assert "a group that would reveal another" in str(reasons["features with hidden groups of values"])
    rows = {row[0]: row[1:3] for row in _table(section, "withheld").rows}
    assert rows["hospitals' own metrics"] == (1, "north")
    assert rows["groups of patients"] == (1, "male: missing")
    assert rows["features"] == (3, "static: rare, vitals: rare, hip: rare")


def test_reading_section_tells_the_risk_of_the_background(tmp_path: Path) -> None:
    # The folder's base is log odds 0, so a risk of 1 / 2.
    assert "log odds 0.00 (a risk of 50.0%)" in _texts(_section(write_run(tmp_path), "reading"))


def test_checklist_has_27_items_and_marks_what_people_must_write(tmp_path: Path) -> None:
    rows = _table(_section(write_run(tmp_path), "tripod"), "tripod-ai").rows

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
    return {str(row[0]): str(row[4]) for row in _table(_section(run, "tripod"), "tripod-ai").rows}


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
    rows = {row[0]: row[1] for row in _table(_section(write_run(tmp_path), "card"), "model-card").rows}

    assert rows["hospitals"] == "3 hospitals took part, 0 were excluded."
    assert rows["intended use and users"] == Marked("to be written by the study's authors", "unknown")
    assert "2 static variables" in str(rows["inputs"])
    assert "image hip" in str(rows["inputs"])


def test_parts_that_hospitals_keep_are_said_not_to_be_in_the_run_folder(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    assert "hold architecture, preprocessing and weights" in _told(run)["22"]
    change(run, "model.json", kept_by_hospitals=["head", "norms"])

    card = {row[0]: row[1] for row in _table(_section(run, "card"), "model-card").rows}

    for told in (_told(run)["22"], str(card["version"])):
        assert "Not in the run folder: the fusion head and the BatchNorm layers." in told
        assert "each hospital's patients were scored with its own" in told
        assert "preprocessing and weights" not in told


def _by(run: Path) -> dict[str, str]:
    """Who fills in each item of the checklist."""
    return {
        str(row[0]): row[3].mark for row in _table(_section(run, "tripod"), "tripod-ai").rows if type(row[3]) is Marked
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


def test_settings_versions_and_hashes_are_there(tmp_path: Path) -> None:
    section = _section(write_run(tmp_path), "reproducing")

    assert ("weights, SHA-256", "e" * 64) in _table(section, "hashes").rows
    assert ("torch", "2.15.0") in _table(section, "versions").rows
    assert ("adapt-penalty", "true") in _table(section, "settings").rows


def test_failed_run_has_every_section_and_none_with_results(tmp_path: Path) -> None:
    run = write_failed_run(tmp_path, reason="no quorum")

    names = [section.name for section in list_sections(read_run(run), WORDS)]
    assert names == [section.name for section in list_sections(read_run(write_run(tmp_path / "whole")), WORDS)]
    for name in ("performance", "importance", "features", "groups", "drift"):
        assert not list_figures(_section(run, name).blocks)


def test_suppressed_run_has_no_figure_of_results(tmp_path: Path) -> None:
    run = write_suppressed_run(tmp_path)

    for name in ("performance", "importance", "features", "groups"):
        assert not list_figures(_section(run, name).blocks)
    rows = {row[0] for row in _table(_section(run, "withheld"), "withheld").rows}
    assert {"metrics of the test part", "the explanation"} <= rows


def test_outcome_is_called_as_the_strata_call_it() -> None:
    assert groups.OUTCOME == OUTCOME


def test_run_without_rounds_says_so(tmp_path: Path) -> None:
    write(tmp_path, "status.json", {"state": "failed", "reason": "nobody"})

    assert describe_training(read_run(tmp_path), WORDS).blocks == (Text("The run did not come to a training round."),)
