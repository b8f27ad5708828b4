"""The data-quality step of a run: who is refused, who is let in by name, and what the coordinator keeps."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import RecordDict
from rich.console import Console

from server.protocol.link import Answer
from server.protocol.quality import exclude_refused, warn_of_quality
from server.protocol.roster import Roster
from server.run_folder.folder import RunFolder
from server.run_folder.summary import print_run
from shared_model.errors import StudyError
from shared_model.protocol.messages import QUALITY, REFERENCE, STATISTICS, TRAIN, QualityReply
from simulation.in_process import InProcessLink
from tests.server.faulty_links import FAULTS, FaultyLink, InterruptedLink, RecordingLink
from tests.server.small_cohort import (
    open_workers,
    read_rounds,
    read_weights,
    run_small_study,
    small_settings,
    write_small_cohort,
)

SOUND = ("east", "north", "south")
BROKEN = "west"


@pytest.fixture(scope="module")
def broken_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four hospitals, of which west writes ages in decades."""
    cohort = write_small_cohort(tmp_path_factory.mktemp("broken") / "cohort", hospitals=4)
    table = pd.read_csv(cohort / BROKEN / "patients.csv")
    table["age"] = (table["age"] / 10).round(2)
    table.to_csv(cohort / BROKEN / "patients.csv", index=False)
    return cohort


@pytest.fixture(scope="module")
def refusing_run(broken_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run_small_study(broken_cohort, tmp_path_factory.mktemp("refusing") / "run", settings=small_settings())


def _quality(folder: RunFolder) -> dict[str, Any]:
    return folder.read_json("quality.json")


def test_red_hospital_is_excluded_with_the_reason_and_the_way_in(refusing_run: RunFolder) -> None:
    config = refusing_run.read_json("config.json")

    assert [site["site"] for site in config["roster"]] == list(SOUND)
    assert config["excluded"] == {
        "west": "data quality: expected no red finding, got unit-shift of static, age 0.099 (limit 1.5). Correct the "
        "hospital's export, or accept it by name in a new run: --set accept-red=west"
    }
    assert all(line["asked"] == list(SOUND) for line in read_rounds(refusing_run))


def test_quality_file_has_a_row_for_each_hospital_and_the_limits(refusing_run: RunFolder) -> None:
    quality = _quality(refusing_run)

    finding = {"check": "unit-shift", "modality": "static", "item": "age", "value": 0.099, "limit": 1.5, "grade": "red"}
    assert quality["hospitals"]["west"]["findings"] == [finding]
    assert (quality["hospitals"]["west"]["grade"], quality["hospitals"]["west"]["refused"]) == ("red", True)
    assert [quality["hospitals"][name]["grade"] for name in SOUND] == ["green"] * 3
    assert (quality["failed"], quality["correlated"]) == ({}, [])
    assert quality["limits"]["unit-shift"]["red"] == 1.5


def test_run_without_the_red_hospital_equals_one_in_which_it_never_was(
    refusing_run: RunFolder, broken_cohort: Path, tmp_path: Path
) -> None:
    link = InProcessLink(open_workers(broken_cohort, tmp_path / "cache", names=SOUND))

    without = run_small_study(broken_cohort, tmp_path / "run", settings=small_settings(), link=link)

    assert read_weights(without) == read_weights(refusing_run)
    for name in ("model.json", "metrics.json"):
        assert (without.path / name).read_bytes() == (refusing_run.path / name).read_bytes()


def test_red_hospital_is_never_asked_for_statistics_or_training(broken_cohort: Path, tmp_path: Path) -> None:
    link = RecordingLink(InProcessLink(open_workers(broken_cohort, tmp_path / "cache")))

    run_small_study(broken_cohort, tmp_path / "run", settings=small_settings(), link=link)

    asked = {kind: {node for k, node, _ in link.questions if k == kind} for kind in (REFERENCE, STATISTICS, TRAIN)}
    assert asked == {REFERENCE: {0, 1, 2, 3}, STATISTICS: {0, 1, 2}, TRAIN: {0, 1, 2}}


def test_hospital_accepted_by_name_takes_part_and_stays_red(broken_cohort: Path, tmp_path: Path) -> None:
    settings = small_settings(rounds_fusion=1, accept_red="east, west", explain="none")

    folder = run_small_study(broken_cohort, tmp_path / "run", settings=settings)

    assert folder.read_json("config.json")["excluded"] == {}
    assert _quality(folder)["hospitals"]["west"]["grade"] == "red"
    assert not _quality(folder)["hospitals"]["west"]["refused"]
    assert read_rounds(folder)[0]["answered"] == [*SOUND, "west"]


def test_run_ends_when_too_few_hospitals_are_left_and_says_why(broken_cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught:
        run_small_study(broken_cohort, tmp_path / "run", settings=small_settings(min_sites=4))

    assert str(caught.value).startswith(
        "data quality: expected answers of at least 4 hospitals (min-sites), got 3 of 4. Failed:\n  west: data quality"
    )
    assert _quality(RunFolder(tmp_path / "run"))["hospitals"]["west"]["refused"]


@pytest.mark.parametrize("asked", [2, 3, 4])  # quality asked, statistics gathered, training begun
def test_refusing_run_interrupted_at_any_question_resumes_to_the_same_bytes(
    asked: int, refusing_run: RunFolder, broken_cohort: Path, tmp_path: Path
) -> None:
    workers, settings = open_workers(broken_cohort, tmp_path / "cache"), small_settings()
    link = InterruptedLink(InProcessLink(workers), at=asked)
    with pytest.raises(KeyboardInterrupt):
        run_small_study(broken_cohort, tmp_path / "run", settings=settings, link=link)

    resumed = run_small_study(
        broken_cohort, tmp_path / "run", settings=settings, link=InProcessLink(workers), resume=True
    )

    assert read_weights(resumed) == read_weights(refusing_run)
    for name in ("quality.json", "metrics.json", "model.json"):
        assert (resumed.path / name).read_bytes() == (refusing_run.path / name).read_bytes()
    assert resumed.read_json("config.json")["excluded"] == refusing_run.read_json("config.json")["excluded"]


def test_hospitals_are_not_judged_again_once_a_model_is_being_trained(broken_cohort: Path, tmp_path: Path) -> None:
    workers, settings = open_workers(broken_cohort, tmp_path / "cache"), small_settings()
    link = InterruptedLink(InProcessLink(workers), at=5)
    with pytest.raises(KeyboardInterrupt):
        run_small_study(broken_cohort, tmp_path / "run", settings=settings, link=link)
    recording = RecordingLink(InProcessLink(workers))

    run_small_study(broken_cohort, tmp_path / "run", settings=settings, link=recording, resume=True)

    assert not {REFERENCE, QUALITY, STATISTICS} & {kind for kind, _, _ in recording.questions}


def _not_a_row(_: str, answer: Answer) -> Answer:
    row = json.dumps({"judged": 1, "by_outcome": True, "findings": [], "patients": ["P1"]})
    return Answer(answer.node, QualityReply(row=row).to_record())


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        (REFERENCE, FAULTS["not-a-number"]),
        (REFERENCE, FAULTS["deadline"]),
        (QUALITY, _not_a_row),
        (QUALITY, lambda _, answer: Answer(answer.node, RecordDict())),
    ],
    ids=["reference-nan", "reference-late", "row-malformed", "row-empty"],
)
def test_hospital_whose_quality_is_not_known_takes_part_and_is_named(
    cohort: Path, tmp_path: Path, kind: str, spoil: Any
) -> None:
    link = FaultyLink(InProcessLink(open_workers(cohort, tmp_path / "cache")), 1, spoil, (kind,))

    folder = run_small_study(
        cohort, tmp_path / "run", settings=small_settings(rounds_fusion=1, explain="none"), link=link
    )

    assert list(_quality(folder)["failed"]) == ["north"]
    assert "north" not in _quality(folder)["hospitals"]
    assert "north" in read_rounds(folder)[0]["answered"]


def test_hospital_that_may_not_release_a_row_shows_as_suppressed_and_is_not_refused(
    cohort: Path, tmp_path: Path
) -> None:
    def hide(_: str, answer: Answer) -> Answer:
        return Answer(answer.node, QualityReply(row='{"suppressed": true}').to_record())

    link = FaultyLink(InProcessLink(open_workers(cohort, tmp_path / "cache")), 1, hide, (QUALITY,))

    folder = run_small_study(
        cohort, tmp_path / "run", settings=small_settings(rounds_fusion=1, explain="none"), link=link
    )

    assert _quality(folder)["hospitals"]["north"] == {"suppressed": True}
    assert "north" in read_rounds(folder)[0]["answered"]


def test_pair_that_is_correlated_everywhere_is_told_of_the_study_and_of_no_hospital(tmp_path: Path) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=3)
    for table in cohort.glob("*/patients.csv"):
        rows = pd.read_csv(table)
        rows["male"] = (rows["age"] > rows["age"].median()).astype(int)
        rows["age"] = 70 + 20 * rows["male"] + np.arange(len(rows)) % 3
        rows.to_csv(table, index=False)

    folder = run_small_study(cohort, tmp_path / "run", settings=small_settings(rounds_fusion=1, explain="none"))

    (pair,) = _quality(folder)["correlated"]
    assert (pair["modality"], pair["pair"]) == ("static", "age ~ male")
    assert pair["r"] >= 0.99
    assert all(entry["grade"] == "green" for entry in _quality(folder)["hospitals"].values())


def test_show_prints_a_line_for_each_hospital_that_is_not_green(refusing_run: RunFolder) -> None:
    refusing_run.write_status("completed")
    told = StringIO()

    print_run(refusing_run.path, Console(file=told, width=200))

    lines = [line for line in told.getvalue().splitlines() if line.startswith("data quality")]
    assert lines == [
        "data quality: west (refused): red: unit-shift of static, age 0.099 (limit 1.5)",
        "data quality: green: east, north, south",
    ]


def test_hospital_that_comes_to_a_resumed_run_unjudged_takes_no_part() -> None:
    """And one that failed to answer when it was there, or passed, does."""
    roster = Roster(names={1: "east", 2: "late", 3: "north"}, modalities={}, versions={}, excluded={})
    judged = {"hospitals": {"east": {"findings": []}}, "failed": {"north": "no answer in time"}}

    left = exclude_refused(roster, judged)

    assert left.names == {1: "east", 3: "north"}
    assert "came to a resumed run" in left.excluded["late"]


def test_hospital_of_too_few_patients_to_be_judged_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    roster = Roster(names={1: "east"}, modalities={}, versions={}, excluded={})
    judged = {"hospitals": {"east": {"suppressed": True}}, "failed": {}}
    warn_of_quality(exclude_refused(roster, judged), judged, settings=small_settings())
    assert "data quality of east is not known" in caplog.text
