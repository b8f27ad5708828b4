import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from server.report.content import read_run
from server.report.page import list_sections
from server.report.sections import groups
from server.report.sections.dependence import label_group
from server.report.sections.training import describe_training
from server.run_folder.explanation import ValueGroup
from shared_model.pages.blocks import Marked, Notice, Text, list_figures
from shared_model.shapley.strata import OUTCOME
from tests.server.report.reading_sections import WORDS, figure_of, section_of, table_of, texts_of
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


def test_forest_plots_show_released_hospitals_alone_and_tables_name_the_suppressed(tmp_path: Path) -> None:
    run = write_run(tmp_path, hidden_hospitals=["north"])

    auc = figure_of(section_of(run, "performance"), "auc_by_hospital")
    assert auc.layout["yaxis"]["ticktext"] == ["all hospitals", "east", "south"]  # type: ignore[index]
    assert auc.table.rows[2] == ("north", *(["suppressed"] * 7))
    shares = figure_of(section_of(run, "importance"), "forest-0")
    assert shares.layout["yaxis"]["ticktext"] == [  # type: ignore[index]
        "all patients",
        "east",
        "south",
        "mean hospital",
        "next hospital",
    ]
    assert shares.table.rows[-1] == ("north", "suppressed", "suppressed")
    assert "Hospitals whose shares are not shown: 1." in texts_of(section_of(run, "importance"))


def test_single_modality_is_told_without_interval_and_spread(tmp_path: Path) -> None:
    run = write_run(tmp_path, modalities=["static"])

    section = section_of(run, "importance")

    assert not list_figures(section.blocks)
    assert "100% by construction" in texts_of(section)
    assert "modality" in table_of(section, "modalities").columns
    assert not any("share" in column for column in table_of(section, "modalities").columns)
    assert "100% by construction" in texts_of(section_of(run, "groups"))
    card = {row[0]: str(row[1]) for row in table_of(section_of(run, "card"), "model-card").rows}
    assert "100% by construction" in card["what it looks at"]
    assert "I²" not in card["between hospitals"]


def test_model_that_uses_nothing_is_told_in_words(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    nothing = modality_entry(0.5) | {"share": None, "share_ci": None, "mean_abs": 0.0}
    change(run, "explanations.json", modalities={"static": nothing, "hip": nothing})

    section = section_of(run, "importance")

    assert section.blocks == (Notice(WORDS("first.shares_unused")),)


def test_interactions_that_are_all_zero_are_told_in_words(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    pair = {"modalities": ["static", "hip"], "mean": 0.0, "mean_abs": 0.0}
    change(run, "explanations.json", interactions=[pair])

    assert "All pairwise interactions are 0" in texts_of(section_of(run, "importance"))


def test_features_have_units_groups_of_values_and_what_is_suppressed_in_words(tmp_path: Path) -> None:
    section = section_of(write_run(tmp_path), "features")

    sizes = figure_of(section, "sizes-0")
    assert sizes.table.rows[0][:5] == ("feature 0", "g/L", 400, 0.5, "0.45 to 0.55")
    assert sizes.table.rows[0][6] == "lowers the risk"
    effect = figure_of(section, "dependence-0-0")
    assert effect.table.rows == (
        ("below 90 g/L", 150, 0.5, 0.05),
        ("90 to 120 g/L", 240, -0.5, 0.04),
        ("120 g/L or more", "suppressed", "suppressed", "suppressed"),
        ("missing", "suppressed", "suppressed", "suppressed"),
    )
    assert effect.data[0]["x"] == [0, 1]
    assert len(effect.layout["shapes"]) == 2  # type: ignore[arg-type]
    histogram = table_of(section, "histogram-0-0")
    assert histogram.columns[1:] == ("below 0", "0 or more")
    assert histogram.rows[0] == ("below 90 g/L", 0, 150)
    assert "or as a hidden group would be given back (1): rare." in texts_of(section)


def test_features_whose_means_leave_hidden_values_out_are_named(tmp_path: Path) -> None:
    run = write_run(tmp_path, modalities=["static"], features=3)
    content = json.loads((run / "explanations.json").read_text())
    content["features"]["static"][1]["hidden_values"] = True
    (run / "explanations.json").write_text(json.dumps(content))

    text = texts_of(section_of(run, "features"))

    assert "Means leave out patients with a level or count that few have" in text
    assert "That concerns 1 of these 3 features." in text


def test_overview_of_values_places_groups_from_low_to_high(tmp_path: Path) -> None:
    dots = figure_of(section_of(write_run(tmp_path, features=1, modalities=["static"]), "features"), "values-0").data[0]

    assert (dots["x"], dots["y"]) == ([0.5, -0.5], [0, 0])
    assert dots["marker"]["color"] == [0.0, 0.5]  # type: ignore[index]


def test_modality_whose_features_may_not_be_told_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    change(run, "explanations.json", features={"static": SUPPRESSED, "vitals": [feature("hr", 0.2)]})

    assert "Suppressed: too few hospitals have this modality." in texts_of(section_of(run, "features"))
    rows = {row[0]: row[2] for row in table_of(section_of(run, "withheld"), "withheld").rows}
    assert rows["features of a modality"] == "static"


def test_feature_whose_groups_are_withheld_has_no_curve(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    hidden = feature("male", 0.2) | {"groups": [], "histogram": SUPPRESSED}
    change(run, "explanations.json", features={"static": [hidden]})

    section = section_of(run, "features")

    assert [figure.name for figure in list_figures(section.blocks)] == ["sizes-0"]
    assert "Groups of values are not shown" in texts_of(section)
    assert "Suppressed in the figure of values and effects (1): male." in texts_of(section)


def test_strongest_feature_stands_in_values_and_effects_though_its_groups_are_withheld(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    hidden = feature("age", 0.9) | {"groups": [], "histogram": SUPPRESSED}
    change(run, "explanations.json", features={"static": [hidden, feature("albumin", 0.2)]})

    section = section_of(run, "features")

    figure = figure_of(section, "values-0")
    assert figure.layout["yaxis"]["ticktext"] == ["age: suppressed", "albumin (g/L)"]  # type: ignore[index]
    assert figure.table.rows[0] == ("age", "all groups", "suppressed", "suppressed", "suppressed")
    assert figure.data[0]["y"] == [1, 1]
    rows = {row[0]: row[2] for row in table_of(section_of(run, "withheld"), "withheld").rows}
    assert rows["features with groups of values that are hidden, some or all"] == "static: age, static: albumin"
    assert rows["histograms of features"] == "static: age"


def test_withheld_section_names_everything_that_is_hidden(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    names = [f"feature {i}" for i in range(30)]
    change(run, "explanations.json", features={"static": [{"name": name, **SUPPRESSED} for name in names]})

    rows = {row[0]: row for row in table_of(section_of(run, "withheld"), "withheld").rows}

    assert rows["features"][1:3] == (30, ", ".join(f"static: {name}" for name in names))
    assert rows["numbers of patients"][2] == "static, vitals, hip"


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

    section = section_of(run, "groups")

    assert [row[:2] for row in table_of(section, "groups-0").rows] == [("no (0)", 200), ("yes (1)", "suppressed")]
    assert [row[0] for row in table_of(section, "groups-1").rows] == ["1"]


def test_validation_is_drawn_at_the_rounds_that_made_its_model(tmp_path: Path) -> None:
    section = section_of(write_run(tmp_path, rounds=3), "training")

    # Round 1 validates the model after no round; the phase's last line, which trains nothing, that after round 1.
    unimodal = figure_of(section, "training-unimodal-loss")
    assert unimodal.data[0]["x"] == [0, 1]
    assert unimodal.data[0]["y"] == [0.295, 0.29]
    fusion = figure_of(section, "training-fusion-loss")
    assert fusion.data[0]["x"] == [1, 2]
    assert fusion.data[1]["x"] == [2, 3]
    assert fusion.layout["shapes"][0]["x0"] == 3  # type: ignore[index]
    assert figure_of(section, "training-unimodal-heads").data[0]["y"] == [0.9]


def test_line_that_only_validates_is_no_round(tmp_path: Path) -> None:
    rows = table_of(section_of(write_run(tmp_path, rounds=3), "training"), "rounds").rows

    found = [(row[1], row[0]) for row in rows]
    assert found == [
        ("unimodal", "1"),
        ("unimodal", "1, validation only"),
        ("fusion", "2"),
        ("fusion", "3"),
    ]


def test_round_that_was_trained_again_is_one(tmp_path: Path) -> None:
    """A round without a quorum keeps its line, and a resumed run trains it anew."""
    run = write_run(tmp_path, rounds=2)
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    lines.insert(-1, {**lines[-1], "train_loss": None, "answered": []})
    (run / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    rows = table_of(section_of(run, "training"), "rounds").rows

    assert [row[0] for row in rows] == ["1", "1, validation only", "2", "2"]


def test_rounds_table_names_who_did_not_answer_and_why(tmp_path: Path) -> None:
    table = table_of(section_of(write_failed_run(tmp_path, reason="no quorum"), "training"), "rounds")

    assert table.rows[0][2:4] == (
        "1 of 3",
        "north: no answer within 900 s; south: no answer within 900 s",
    )


def test_share_of_the_only_modality_does_not_drift(tmp_path: Path) -> None:
    section = section_of(write_run(tmp_path, rounds=4, modalities=["static"]), "drift")

    assert texts_of(section) == "The model has one modality, whose share is 100% by construction: it tells nothing."


def test_drift_tells_shares_after_each_explained_round(tmp_path: Path) -> None:
    section = section_of(write_run(tmp_path, rounds=4, modalities=["static", "hip"]), "drift")

    assert [row[0] for row in figure_of(section, "drift").table.rows] == ["2", "4"]
    assert figure_of(section, "drift").table.rows[0][1:] == ("66.7%", "33.3%")
    assert table_of(section, "drift-distances").rows[0][:4] == ("2", "4", "all hospitals", 0.1)


def test_drift_that_may_not_be_told_is_suppressed_in_words(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    line = json.loads((run / "rounds.jsonl").read_text().splitlines()[-1])
    line["explanation"] = {"shares": SUPPRESSED, "sites": {}}
    (run / "rounds.jsonl").write_text(json.dumps(line) + "\n")

    assert texts_of(section_of(run, "drift")).startswith("Suppressed")


def test_data_quality_gives_a_word_and_reasons_for_every_hospital(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    findings = [
        {"check": "level-shift", "modality": "static", "item": "age", "value": 1.2, "limit": 1.0, "grade": "amber"},
        {"check": "prevalence", "modality": "", "item": "", "value": None, "limit": 50.0, "grade": "red"},
    ]
    red = {"grade": "red", "refused": True, "findings": findings}
    change(run, "quality.json", hospitals={"east": red, "north": SUPPRESSED}, failed={"south": "no answer"})
    change(run, "config.json", excluded={"east": "data quality", "west": "another schema"})

    rows = table_of(section_of(run, "quality"), "data-quality").rows

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
    section = section_of(write_run(tmp_path, hidden_hospitals=["north"]), "withheld")

    assert "at least 10 patients, 5 events and 5 non-events; a sum joins at least 3 hospitals" in texts_of(section)
    assert "By patients alone, with any number of events, are shown: groups of a feature's values" in texts_of(section)
    reasons = {row[0]: row[3] for row in table_of(section, "withheld").rows}
    assert "a group that would reveal another" in str(
        reasons["features with groups of values that are hidden, some or all"]
    )
    rows = {row[0]: row[1:3] for row in table_of(section, "withheld").rows}
    assert rows["hospitals' own metrics"] == (1, "north")
    assert rows["groups of patients"] == (1, "male: missing")
    assert rows["features"] == (3, "static: rare, vitals: rare, hip: rare")


def test_settings_versions_and_hashes_are_there(tmp_path: Path) -> None:
    section = section_of(write_run(tmp_path), "reproducing")

    assert ("weights, SHA-256", "e" * 64) in table_of(section, "hashes").rows
    assert ("torch", "2.15.0") in table_of(section, "versions").rows
    assert ("adapt-penalty", "true") in table_of(section, "settings").rows


def test_failed_run_has_every_section_and_none_with_results(tmp_path: Path) -> None:
    run = write_failed_run(tmp_path, reason="no quorum")

    names = [section.name for section in list_sections(read_run(run), WORDS)]
    assert names == [section.name for section in list_sections(read_run(write_run(tmp_path / "whole")), WORDS)]
    for name in ("performance", "importance", "features", "groups", "drift"):
        assert not list_figures(section_of(run, name).blocks)


def test_suppressed_run_has_no_figure_of_results(tmp_path: Path) -> None:
    run = write_suppressed_run(tmp_path)

    for name in ("performance", "importance", "features", "groups"):
        assert not list_figures(section_of(run, name).blocks)
    rows = {row[0] for row in table_of(section_of(run, "withheld"), "withheld").rows}
    assert {"metrics of the test part", "the explanation"} <= rows


def test_outcome_is_called_as_the_strata_call_it() -> None:
    assert groups.OUTCOME == OUTCOME


def test_run_without_rounds_says_so(tmp_path: Path) -> None:
    write(tmp_path, "status.json", {"state": "failed", "reason": "nobody"})

    assert describe_training(read_run(tmp_path), WORDS).blocks == (Text("The run did not come to a training round."),)


def test_sections_of_pooled_folds_send_the_reader_to_each_fold(tmp_path: Path) -> None:
    write_run(tmp_path / "fold-0")
    write(tmp_path, "metrics.json", {"folds": [0, 1], "test": scored_part([], [])})
    write(tmp_path, "status.json", {"state": "completed", "reason": ""})

    for name in ("training", "importance", "features", "groups", "drift", "quality"):
        assert texts_of(section_of(tmp_path, name)) == WORDS("report.folds_apart")


def test_run_that_explained_nothing_has_no_drift_of_a_final_model(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "explanations.json").unlink()
    lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    kept = [json.dumps({key: value for key, value in line.items() if key != "explanation"}) for line in lines]
    (run / "rounds.jsonl").write_text("\n".join(kept) + "\n")

    assert texts_of(section_of(run, "drift")) == "The run has no explanation."


def test_features_of_a_sample_say_so(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    assert "of a sample of" not in texts_of(section_of(run, "features"))
    change(run, "explanations.json", feature_patients=100)

    assert "of a sample of 100 of the 400 explained patients" in texts_of(section_of(run, "features"))
