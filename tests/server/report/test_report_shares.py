"""Shares of the modalities: what they are written as, with which interval, and where there is no evidence."""

from pathlib import Path

import pytest

from server.report.content import read_run
from server.report.first_screen import FirstScreen, describe_first_screen
from shared_model.pages.blocks import list_figures
from tests.server.report.reading_sections import WORDS, figure_of, section_of, table_of, texts_of
from tests.server.report.run_folders import change, feature, modality_entry, write_run


def _screen(path: Path) -> FirstScreen:
    return describe_first_screen(read_run(path), WORDS)


def test_shares_stand_largest_first_with_their_range_over_refits_and_what_it_means(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    change(run, "explanations.json", modalities={"vitals": modality_entry(0.25), "static": modality_entry(0.75)})

    screen = _screen(run)

    assert [(bar.name, bar.share, bar.beside) for bar in screen.bars] == [
        ("static", "75.0%", "range over refits 73.5% to 76.5%"),
        ("vitals", "25.0%", "range over refits 23.5% to 26.5%"),
    ]
    assert (screen.bars[0].length, screen.bars[0].low, screen.bars[0].high) == (75.0, 73.5, 76.5)
    assert any(one.startswith("Range over refits: the share in 50 models") for one in screen.cautions)


def test_modalities_that_the_model_hardly_uses_are_named_with_what_that_means(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    shares = {"static": modality_entry(0.9995), "hip": modality_entry(0.0004), "chest": modality_entry(0.0)}
    change(run, "explanations.json", modalities=shares)

    assert any(caution.startswith("No evidence that they help: hip, chest.") for caution in _screen(run).cautions)


def test_share_of_a_single_modality_is_said_to_be_whole_by_construction(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    change(run, "explanations.json", modalities={"static": modality_entry(1.0) | {"i2": 0.8}})

    screen = _screen(run)

    (bar,) = screen.bars
    assert (bar.share, bar.beside, bar.low, bar.high) == ("100.0%", "", 100.0, 100.0)
    assert "100% by construction" in screen.shares_note
    assert not any("refits" in caution or "I²" in caution for caution in screen.cautions)


def test_model_that_uses_nothing_has_a_sentence_for_bars_and_a_caution(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    nothing = modality_entry(0.5) | {"share": None, "share_ci": None, "mean_abs": 0.0}
    change(run, "explanations.json", modalities={"static": nothing, "hip": nothing})

    screen = _screen(run)

    assert screen.bars == ()
    assert screen.shares_note.startswith("The model uses none of its inputs: it gives everyone the same risk")
    assert screen.shares_note in screen.cautions


def test_modality_without_a_share_is_not_drawn_as_one(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    nothing = modality_entry(0.5) | {"share": None, "share_ci": None, "share_range": None}
    change(run, "explanations.json", modalities={"static": nothing, "hip": modality_entry(0.5)})

    bar = _screen(run).bars[-1]

    assert (bar.share, bar.beside, bar.length) == ("not available", "", 0.0)


def test_modality_without_evidence_is_said_to_be_unused_and_has_no_zeros(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    shares = {"static": modality_entry(1.0), "hip": modality_entry(0.0) | {"share_range": [0.0, 0.0]}}
    change(run, "explanations.json", modalities=shares)

    bar = _screen(run).bars[-1]

    assert (bar.name, bar.share, bar.length) == ("hip", "not used", 0.0)
    assert bar.beside == "no evidence that it helps: the model does not use it"


def test_weak_modality_whose_refits_tell_nothing_keeps_its_share(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    shares = {"static": modality_entry(0.9), "hip": modality_entry(0.1) | {"evidence": False}}
    change(run, "explanations.json", modalities=shares)

    bar = _screen(run).bars[-1]

    assert (bar.share, bar.beside) == ("10.0%", "no evidence that it helps, range over refits 8.5% to 11.5%")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (None, "Shares have no interval here: the one that there is holds for other patients with this model as it is"),
        (
            {"method": "none", "replicates": 0, "reason": "the head is a perceptron"},
            "Shares have no interval here: the head is a perceptron. The interval that there is holds for other",
        ),
    ],
)
def test_shares_without_refits_have_no_interval_and_say_why(
    tmp_path: Path, made: dict[str, object] | None, said: str
) -> None:
    run = write_run(tmp_path)
    shares = {name: modality_entry(0.5) | {"share_range": None, "evidence": None} for name in ("static", "hip")}
    change(run, "explanations.json", modalities=shares, share_interval=made)

    screen = _screen(run)

    assert {bar.beside for bar in screen.bars} == {""}
    assert any(caution.startswith(said) for caution in screen.cautions)


def test_shares_come_with_range_interval_prediction_interval_and_what_they_mean(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    change(run, "explanations.json", modalities={"static": modality_entry(0.75), "hip": modality_entry(0.25)})

    section = section_of(run, "importance")

    figure = figure_of(section, "shares")
    assert figure.table.rows[0][:7] == (
        "static",
        "75.0%",
        "range over refits 73.5% to 76.5%",
        "72.0% to 78.0%",
        "75.0%",
        "72.0% to 78.0%",
        "69.0% to 81.0%",
    )
    assert figure.data[0]["x"] == [0.75, 0.25]
    assert figure.data[1]["error_x"]["array"] == pytest.approx([0.06, 0.06])  # type: ignore[index]
    assert "Range over refits: the share in 50 models" in texts_of(section)


def test_spread_that_may_not_be_told_is_not_drawn(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    change(run, "explanations.json", modalities={name: modality_entry(0.5, spread=False) for name in ("static", "hip")})

    figure = figure_of(section_of(run, "importance"), "shares")

    assert len(figure.data) == 1
    assert figure.table.rows[0][6] == "not available"
    rows = {row[0] for row in table_of(section_of(run, "withheld"), "withheld").rows}
    assert "spread between hospitals" in rows


def test_prediction_interval_needs_five_hospitals(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    few = {name: modality_entry(0.5) | {"hospitals": 4} for name in ("static", "hip")}
    change(run, "explanations.json", modalities=few)

    figures = list_figures(section_of(run, "importance").blocks)

    assert {row[6] for row in figures[0].table.rows} == {"fewer than 5 hospitals"}
    assert len(figures[0].data) == 1
    assert not any("next hospital" in str(row[0]) for figure in figures for row in figure.table.rows)


def test_modality_that_is_not_used_has_no_zeros_anywhere(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    shares = {"static": modality_entry(1.0), "hip": modality_entry(0.0)}
    group = {"n": 200, "events": 20, "modalities": shares}
    change(run, "explanations.json", modalities=shares, strata={"male": {"0": group, "1": group}})

    told = " ".join(
        [
            *(texts_of(section_of(run, name)) for name in ("importance", "groups")),
            *(str(row) for row in table_of(section_of(run, "card"), "model-card").rows),
            *(str(row) for row in figure_of(section_of(run, "importance"), "shares").table.rows),
            *(str(row) for row in figure_of(section_of(run, "groups"), "groups-0").table.rows),
        ]
    )

    assert "0.0%" not in told.replace("100.0%", "")
    assert "hip not used (no evidence that it helps: the model does not use it)" in told


def test_sizes_of_features_share_one_axis_and_unused_modalities_are_called_that(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    shares = {"static": modality_entry(1.0), "hip": modality_entry(0.0)}
    features = {"static": [feature("age", 0.5)], "hip": [feature("image", 0.0001)]}
    change(run, "explanations.json", modalities=shares, features=features)

    section = section_of(run, "features")

    ranges = [figure_of(section, f"sizes-{i}").layout["xaxis"]["range"] for i in range(2)]  # type: ignore[index]
    assert ranges[0] == ranges[1] == [0, pytest.approx(1.05 * 0.55)]
    assert "The model does not use hip" in texts_of(section)
    assert "The model does not use static" not in texts_of(section)


def test_checklist_and_card_tell_the_limits_and_what_intervals_of_shares_mean(tmp_path: Path) -> None:
    run = write_run(tmp_path)

    told = {row[0]: str(row[4]) for row in table_of(section_of(run, "tripod"), "tripod-ai").rows}
    card = {row[0]: str(row[1]) for row in table_of(section_of(run, "card"), "model-card").rows}

    assert "Range over refits: the share in 50 models" in told["25"]
    assert "random weights, never trained" in told["26"]
    assert "random weights, never trained" in card["limits"]
    assert "Range over refits: the share in 50 models" in card["what it looks at"]
