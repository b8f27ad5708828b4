import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from server.run_folder.folder import RunFolder
from server.run_folder.summary import REFITS_NOTE, print_run, print_shares
from shared_model.errors import StudyError
from tests.server.report.run_folders import change, scored_part, write, write_run


def test_show_of_a_folder_that_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"expected a run folder with status\.json, got none"):
        print_run(tmp_path, Console(file=StringIO()))


def test_show_of_unfinished_folds_tells_the_state_of_each_in_order(tmp_path: Path) -> None:
    for number in (10, 2):
        RunFolder(tmp_path / f"fold-{number}").write_status("completed")
    RunFolder(tmp_path / "fold-0").write_status("failed", "handshake: too few")
    (tmp_path / "fold-11").mkdir()

    with pytest.raises(StudyError) as told:
        print_run(tmp_path, Console(file=StringIO()))

    assert str(told.value).splitlines() == [
        f"{tmp_path}: expected all folds finished and pooled, got:",
        "  fold-0: failed: handshake: too few",
        "  fold-2: completed",
        "  fold-10: completed",
        "  fold-11: missing",
        "Show one of these folders, or repeat the command of the run with --resume.",
    ]


@pytest.mark.parametrize(
    ("title", "outcome", "heading"),
    [("Hip fracture", "death_30d", "deaths"), ("Coronary disease", "disease", "events")],
)
@pytest.mark.parametrize("folds", [False, True])
def test_events_are_called_deaths_only_where_the_study_says_so(
    tmp_path: Path, title: str, outcome: str, heading: str, *, folds: bool
) -> None:
    run = tmp_path
    write_run(run / "fold-2" if folds else run, title=title, outcome=outcome)
    if folds:
        RunFolder(run).write_status("completed")
        write(run, "metrics.json", {"folds": [2], "test": scored_part(["east"], ["east"])})
    told = StringIO()

    print_run(run, Console(file=told, width=200))

    (line,) = (line for line in told.getvalue().splitlines() if line.startswith("test part"))
    assert line.split()[:4] == ["test", "part", "n", heading]


REFITTED = {"share_ci": [0.5, 0.7], "share_range": [0.2, 0.9], "evidence": True, "prediction_interval": None}
MADE = {"method": "refits", "replicates": 100, "reason": None}


def test_shares_are_shown_largest_first_with_their_range_over_refits() -> None:
    told = StringIO()
    modalities = {"vitals": {**REFITTED, "share": 0.4}, "static": {**REFITTED, "share": 0.6}}

    print_shares({"modalities": modalities, "share_interval": MADE}, Console(file=told, width=200))

    lines = told.getvalue().splitlines()
    assert lines[0].split("  ")[:3] == ["modality", "share of attribution", "range over refits"]
    assert [line.split() for line in lines[1:3]] == [
        ["static", "60.0%", "20.0%-90.0%"],
        ["vitals", "40.0%", "20.0%-90.0%"],
    ]
    assert lines[3] == REFITS_NOTE


def test_modality_without_evidence_is_marked_and_has_no_zero_share() -> None:
    told = StringIO()
    nothing = {**REFITTED, "share": 0.0, "share_ci": [0.0, 0.0], "share_range": [0.0, 0.12], "evidence": False}
    modalities = {"vitals": nothing, "static": {**REFITTED, "share": 1.0}}

    print_shares({"modalities": modalities, "share_interval": MADE}, Console(file=told, width=200))

    (line,) = (line for line in told.getvalue().splitlines() if line.startswith("vitals"))
    assert line.split() == ["vitals", "no", "evidence", "up", "to", "12.0%"]


def test_interval_with_the_model_kept_never_stands_in_for_the_range() -> None:
    told = StringIO()
    entry = {**REFITTED, "share_range": None, "evidence": None}
    modalities = {"vitals": {**entry, "share": 0.4}, "static": {**entry, "share": 0.6}}
    interval = {"method": "none", "replicates": 0, "reason": "share-refits=0"}

    print_shares({"modalities": modalities, "share_interval": interval}, Console(file=told, width=200))

    lines = told.getvalue().splitlines()
    assert [line.split() for line in lines[1:3]] == [["static", "60.0%"], ["vitals", "40.0%"]]
    assert lines[3] == "no range over refits: share-refits=0"


def test_hospitals_that_did_not_explain_are_named() -> None:
    told = StringIO()
    entry = {"share": 0.5, "share_ci": [0.4, 0.6], "prediction_interval": None}
    explanations = {
        "modalities": {"vitals": entry, "static": entry},
        "failed": {"south": "out of memory"},
        "spread_failed": {"north": "no answer"},
    }

    print_shares(explanations, Console(file=told, width=200))

    assert told.getvalue().splitlines()[:2] == [
        "not in the explanation: south: out of memory",
        "not in the spread between hospitals: north: no answer",
    ]


def test_model_that_uses_nothing_has_no_shares_to_tell() -> None:
    told = StringIO()
    entry = {"share": None, "share_ci": None, "prediction_interval": None}

    print_shares({"modalities": {"vitals": entry, "static": entry}}, Console(file=told, width=200))

    assert told.getvalue() == "explanation: the model uses none of its inputs, so there are no shares\n"


def test_only_modality_has_no_share_to_tell() -> None:
    told = StringIO()
    entry = {"share": 1.0, "share_ci": [1.0, 1.0], "prediction_interval": None}

    print_shares({"modalities": {"static": entry}}, Console(file=told, width=200))

    assert told.getvalue() == "explanation: static is the only modality: its share is 100% by construction\n"


@pytest.mark.parametrize(("weights", "is_told"), [("", True), ("resnet18.pt", False)])
def test_images_through_a_random_network_are_told(tmp_path: Path, weights: str, *, is_told: bool) -> None:
    run, told = write_run(tmp_path), StringIO()
    settings = json.loads((run / "config.json").read_text())["settings"]
    change(run, "config.json", settings=settings | {"image-encoder": "resnet18", "image-weights": weights})

    print_run(run, Console(file=told, width=200))

    line = "images: hip: ResNet-18 with random weights, never trained; 16 principal components of its output"
    assert (line in told.getvalue()) == is_told


def _entry(share: float | None, **others: Any) -> dict[str, Any]:
    return {"share": share, "share_ci": [0.1, 0.2], "prediction_interval": [0.25, 0.75], "hospitals": 5, **others}


def _show_shares(width: int = 80, *, is_terminal: bool = True, **explanations: Any) -> list[str]:
    told = StringIO()
    print_shares(explanations, Console(file=told, width=width, force_terminal=is_terminal, color_system=None))
    return told.getvalue().splitlines()


def test_shares_stand_beside_their_range_over_refits_and_what_is_expected_of_a_new_hospital() -> None:
    shown = _show_shares(
        modalities={"vitals": _entry(0.4, share_range=[0.3, 0.5]), "static": _entry(0.6, share_range=[0.5, 0.7])},
        share_interval={"method": "refits", "replicates": 200, "reason": None},
    )

    assert shown == [
        "modality  share of attribution  range over refits  prediction interval",
        "static    60.0%                 50.0%-70.0%        25.0%-75.0%",
        "vitals    40.0%                 30.0%-50.0%        25.0%-75.0%",
        REFITS_NOTE,
        "prediction interval for a new hospital: its share is expected there at 95 %",
    ]


def test_nothing_is_told_of_a_new_hospital_by_fewer_than_five() -> None:
    shown = _show_shares(modalities={"vitals": _entry(0.4, hospitals=4), "static": _entry(0.6, hospitals=4)})

    assert not any("prediction" in line or "25.0%" in line for line in shown)


@pytest.mark.parametrize("share", [0.0, 0.0004, None])
@pytest.mark.parametrize(("evidence", "words"), [(False, "no evidence"), (None, "not used by this model")])
def test_modality_that_the_model_does_not_use_has_no_zero_share(
    share: float | None, words: str, *, evidence: bool | None
) -> None:
    nothing = [0.0, 0.0]
    zero = _entry(share, share_ci=nothing, share_range=nothing, prediction_interval=nothing, evidence=evidence)
    shown = _show_shares(modalities={"hip": zero, "static": _entry(0.7), "vitals": _entry(0.3)})

    assert next(line for line in shown if line.startswith("hip")).split(maxsplit=1)[1] == words
    assert not re.search(r"\b0\.0%", "".join(shown))


@pytest.mark.parametrize("width", [40, 60, 80])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_no_number_of_a_run_is_cut_on_a_narrow_screen(tmp_path: Path, width: int, *, is_terminal: bool) -> None:
    run, wide, narrow = write_run(tmp_path), StringIO(), StringIO()
    print_run(run, Console(file=wide, width=300))
    print_run(run, Console(file=narrow, width=width, force_terminal=is_terminal, color_system=None))

    numbers = set(re.findall(r"\d+\.\d+(?:%|-\d\.\d+)?", wide.getvalue()))
    assert len(numbers) > 10
    assert all(number in narrow.getvalue() for number in numbers)
    assert "…" not in narrow.getvalue()


def test_auc_within_hospitals_is_told_by_its_name(tmp_path: Path) -> None:
    told = StringIO()

    print_run(write_run(tmp_path), Console(file=told, width=80))

    assert "AUC within hospitals 0.770: patients compared with those of their own" in told.getvalue()
