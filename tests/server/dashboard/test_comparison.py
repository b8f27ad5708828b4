"""Runs side by side, with their numbers as they are."""

import json
from pathlib import Path

import server.dashboard
from server.dashboard.comparison import describe_comparison
from server.dashboard.reading import RunReader
from shared_model.pages.blocks import Cell, Notice, Table
from shared_model.pages.document import WORDS
from shared_model.pages.wording import Words
from tests.server.report.run_folders import change, modality_entry, write, write_run, write_suppressed_run

OURS = Words(WORDS, Path(server.dashboard.__file__).parent / "english.toml")


def _compare(root: Path, *names: str) -> dict[str, dict[Cell, tuple[Cell, ...]]]:
    """Rows by their heading, by name of the table."""
    reader = RunReader(root)
    runs = [run for name in names if (run := reader.read_detail(name))]
    tables: dict[str, dict[Cell, tuple[Cell, ...]]] = {}
    for section in describe_comparison(runs, OURS):
        for block in section.blocks:
            table = block if isinstance(block, Table) else getattr(block, "table", None)
            if table is not None:
                tables[table.name] = {row[0]: row[1:] for row in table.rows}
    return tables


def test_metrics_of_two_runs_stand_side_by_side_with_all_intervals_that_are_kept(tmp_path: Path) -> None:
    write_run(tmp_path / "one")
    write_suppressed_run(tmp_path / "two")

    rows = _compare(tmp_path, "one", "two")["metrics"]

    assert rows["AUC"] == ("0.781 (0.701 to 0.845)", "suppressed")
    assert rows["Brier score"] == ("0.067 (0.052 to 0.082)", "suppressed")
    assert rows["Calibration slope"] == ("0.620 (0.360 to 0.880)", "suppressed")
    assert rows["ECE"] == ("0.021", "suppressed")


def test_share_of_a_modality_that_a_run_lacks_is_said_to_be_absent(tmp_path: Path) -> None:
    for name, modalities in {
        "one": {"static": modality_entry(0.7), "vitals": modality_entry(0.3)},
        "two": {"static": modality_entry(1.0)},
    }.items():
        change(write_run(tmp_path / name), "explanations.json", modalities=modalities)

    rows = _compare(tmp_path, "one", "two")["compared-shares"]

    assert rows["static"] == ("70.0% (range over refits 68.5% to 71.5%)", "100.0%")
    assert rows["vitals"][1] == OURS("compare.absent")


def test_only_settings_in_which_runs_differ_are_told(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_run(tmp_path / name)
    assert "settings" not in _compare(tmp_path, "one", "two")

    settings = {"seed": 7, "rounds-fusion": 3}
    change(tmp_path / "one", "config.json", settings=settings)
    change(tmp_path / "two", "config.json", settings=settings | {"seed": 8})

    assert _compare(tmp_path, "one", "two")["settings"] == {"seed": ("7", "8")}


def _notices(root: Path, *names: str) -> list[str]:
    reader = RunReader(root)
    runs = [run for name in names if (run := reader.read_detail(name))]
    return [block.text for block in describe_comparison(runs, OURS)[0].blocks if isinstance(block, Notice)]


def test_runs_of_another_number_of_folds_are_said_to_have_other_test_patients(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_run(tmp_path / name)
    assert OURS("compare.other_test") not in _notices(tmp_path, "one", "two")

    for name, folds in {"one": 5, "two": 10}.items():
        change(tmp_path / name, "config.json", settings={"seed": 0, "fold": 1, "folds": folds})

    assert OURS("compare.other_test") in _notices(tmp_path, "one", "two")


def test_runs_of_other_hospitals_are_said_to_tell_by_subtraction(tmp_path: Path) -> None:
    write_run(tmp_path / "one", hospitals=["north", "south", "west"])
    write_run(tmp_path / "two", hospitals=["north", "south", "west"])
    write_run(tmp_path / "more", hospitals=["north", "south", "west", "east"])

    assert OURS("compare.other_hospitals") not in _notices(tmp_path, "one", "two")
    assert OURS("compare.other_hospitals") in _notices(tmp_path, "one", "more")


def test_hospital_that_did_not_answer_in_one_test_makes_it_another(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_run(tmp_path / name)
    part = json.loads((tmp_path / "two" / "metrics.json").read_text())["test"]
    write(tmp_path / "two", "metrics.json", {"test": {**part, "failed": {"south": "no answer"}}})

    notices = _notices(tmp_path, "one", "two")

    assert OURS("compare.other_test") in notices
    assert OURS("compare.other_hospitals") in notices


def test_runs_of_other_studies_may_have_other_hospitals_as_well(tmp_path: Path) -> None:
    write_run(tmp_path / "one", hospitals=["north", "south", "west"])
    change(write_run(tmp_path / "two", hospitals=["north", "south"]), "config.json", schema_sha256="b" * 64)

    assert _notices(tmp_path, "one", "two")[1:] == [OURS("compare.other_study"), OURS("compare.other_hospitals")]


def test_pooled_folds_have_other_test_patients_than_one_of_them(tmp_path: Path) -> None:
    for name in ("cv", "again"):
        for fold in (0, 1):
            write_run(tmp_path / name / f"fold-{fold}")
        part = json.loads((tmp_path / name / "fold-0" / "metrics.json").read_text())["test"]
        write(tmp_path / name, "metrics.json", {"folds": [0, 1], "test": part})
        write(tmp_path / name, "status.json", {"state": "completed", "reason": ""})

    assert OURS("compare.other_test") in _notices(tmp_path, "cv", "cv/fold-0")
    assert OURS("compare.other_test") not in _notices(tmp_path, "cv", "again")


def test_folds_that_were_pooled_count_not_those_that_lie_beside_them(tmp_path: Path) -> None:
    for name in ("two", "more"):
        for fold in (0, 1, 2):
            write_run(tmp_path / name / f"fold-{fold}")
        part = json.loads((tmp_path / name / "fold-0" / "metrics.json").read_text())["test"]
        pooled = {
            "folds": [0, 1] if name == "two" else [0, 1, 2],
            "test": {**part, "failed": {"south": "fold 1: late"}},
        }
        write(tmp_path / name, "metrics.json", pooled)
        write(tmp_path / name, "status.json", {"state": "completed", "reason": ""})
    write_run(tmp_path / "without", hospitals=["east", "north"])

    assert OURS("compare.other_test") in _notices(tmp_path, "two", "more")
    assert OURS("compare.other_hospitals") not in _notices(tmp_path, "two", "more")
    assert OURS("compare.other_hospitals") in _notices(tmp_path, "two", "without")


def test_overlapping_intervals_are_not_said_to_show_that_runs_are_equal(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_run(tmp_path / name)

    assert _notices(tmp_path, "one", "two")[0].startswith("Overlapping intervals do not show that runs are equal")
