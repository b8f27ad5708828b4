"""Whole runs in one process, over links that work, fail or stop."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from client.worker.answering import Worker
from server.run_folder.folder import RunFolder
from server.settings_check import check_settings
from shared_model.config import Settings
from shared_model.errors import SettingsError, StudyError
from shared_model.model.fusion import build_model
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.protocol.messages import EVALUATE, STATISTICS, TRAIN
from shared_model.schema import load_schema, parse_schema
from shared_model.training.updates import hash_weights
from simulation.in_process import InProcessLink
from tests.server.faulty_links import FAULTS, FaultyLink, InterruptedLink
from tests.server.small_cohort import (
    STATIC_SCHEMA,
    VARYING,
    open_workers,
    read_rounds,
    read_weights,
    run_small_study,
    small_settings,
)

AFTER_HANDSHAKE = (STATISTICS, TRAIN, EVALUATE)


# ----------------------------------------------------------------------------------------------- faults of one hospital


@pytest.fixture(scope="session")
def settings() -> Settings:
    return small_settings(min_sites=3, rounds_fusion=1)


@pytest.fixture(scope="session")
def three_of_four(cohort: Path, tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> RunFolder:
    """The run of the three hospitals that stay well; the fourth, west, is not there at all."""
    folder = tmp_path_factory.mktemp("three")
    workers = open_workers(cohort, folder / "cache", names=["east", "north", "south"])
    return run_small_study(cohort, folder / "run", settings=settings, link=InProcessLink(workers))


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_hospital_is_named_and_changes_nothing_of_the_result(
    fault: str, cohort: Path, tmp_path: Path, settings: Settings, three_of_four: RunFolder
) -> None:
    workers = open_workers(cohort, tmp_path / "cache", names=["east", "north", "south", "west"])
    link = FaultyLink(InProcessLink(workers), 3, FAULTS[fault], AFTER_HANDSHAKE)

    folder = run_small_study(cohort, tmp_path / "run", settings=settings, link=link)

    assert read_weights(folder) == read_weights(three_of_four)
    attended = ("asked", "failed")
    assert read_rounds(folder, without=(*VARYING, *attended)) == read_rounds(
        three_of_four, without=(*VARYING, *attended)
    )
    for line in read_rounds(folder):
        assert line["asked"] == ["east", "north", "south", "west"]
        assert list(line["failed"]) == ["west"]
        assert line["failed"]["west"]
    metrics, expected = (json.loads((run.path / "metrics.json").read_text())["test"] for run in (folder, three_of_four))
    assert list(metrics.pop("failed")) == ["west"]
    expected.pop("failed")
    assert metrics == expected


def test_hospital_that_fails_one_round_comes_back_in_the_next(cohort: Path, tmp_path: Path) -> None:
    workers = open_workers(cohort, tmp_path / "cache")
    failures: list[str] = []

    def once(kind: str, answer: Any) -> Any:
        failures.append(kind)
        return FAULTS["deadline"](kind, answer) if len(failures) == 1 else answer

    folder = run_small_study(
        cohort,
        tmp_path / "run",
        settings=small_settings(rounds_fusion=3),
        link=FaultyLink(InProcessLink(workers), 1, once, (TRAIN,)),
    )

    assert [line["failed"] for line in read_rounds(folder)] == [{"north": "no answer within 5 s"}, {}, {}, {}]


def test_run_fails_by_name_when_all_hospitals_fail(cohort: Path, tmp_path: Path) -> None:
    link: Any = InProcessLink(open_workers(cohort, tmp_path / "cache"))
    for node in range(4):
        link = FaultyLink(link, node, FAULTS["not-a-number"], (TRAIN,))

    with pytest.raises(StudyError) as caught:
        run_small_study(cohort, tmp_path / "run", settings=small_settings(min_sites=1), link=link)

    assert str(caught.value).startswith("round 1 (fusion): expected answers of at least 1 hospitals")
    assert all(f"  {name}: " in str(caught.value) for name in ("east", "north", "south", "west"))
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_run_fails_by_name_when_too_few_are_left_for_the_statistics(cohort: Path, tmp_path: Path) -> None:
    link: Any = InProcessLink(open_workers(cohort, tmp_path / "cache"))
    for node in (0, 2):
        link = FaultyLink(link, node, FAULTS["deadline"], (STATISTICS,))

    with pytest.raises(StudyError) as caught:
        run_small_study(cohort, tmp_path / "run", settings=small_settings(min_sites=3), link=link)

    assert str(caught.value).splitlines()[1:] == ["  east: no answer within 5 s", "  south: no answer within 5 s"]


# -------------------------------------------------------------------------------------------------------- run folder


@pytest.fixture(scope="session")
def whole_run(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """One phase after the other, on the four static hospitals."""
    return run_small_study(cohort, tmp_path_factory.mktemp("whole") / "run", settings=_phases())


def _phases(**changes: Any) -> Settings:
    rounds = {"rounds_unimodal": 1, "rounds_fusion": 2, "rounds_joint": 1, "strategy": "fedadam"}
    return small_settings(**{**rounds, **changes})


def test_run_folder_holds_what_design_promises(whole_run: RunFolder, cohort: Path) -> None:
    schema = load_schema(cohort / "schema.toml")

    config = json.loads((whole_run.path / "config.json").read_text())
    model = json.loads((whole_run.path / "model.json").read_text())
    metrics = json.loads((whole_run.path / "metrics.json").read_text())

    assert config["settings"] == _phases().to_config()
    assert config["schema_sha256"] == model["schema_sha256"] == schema.sha256
    assert [site["site"] for site in config["roster"]] == ["east", "north", "south", "west"]
    assert all(site["modalities"] == ["static"] for site in config["roster"])
    assert config["excluded"] == {}
    assert {"hipfed", "flwr", "torch", "numpy"} <= set(config["packages"])
    assert model["file_sha256"] == hashlib.sha256(read_weights(whole_run)).hexdigest()
    assert model["weights_sha256"] == hash_weights(load_file(whole_run.path / "model.safetensors"))
    assert model["preprocessing_sha256"] == hashlib.sha256(model["preprocessing"].encode()).hexdigest()
    assert Preprocessing.from_json(model["preprocessing"]).n == 4 * 36  # three of five folds of 60
    assert set(metrics["test"]["pooled"]) >= {
        *("n", "events", "auc", "auc_ci", "auc_within", "auprc", "brier", "log_loss"),
        *("calibration_slope", "calibration_intercept", "ece"),
    }
    # 60 patients, 18 deaths over five folds of 12: each hospital's folds have 4, 4, 4, 3 and 3 deaths
    assert metrics["test"]["pooled"]["n"] == 48
    assert 4 * 3 <= metrics["test"]["pooled"]["events"] <= 4 * 4
    # fewer than five deaths at each hospital
    assert metrics["test"]["sites"] == {name: {"suppressed": True} for name in ("east", "north", "south", "west")}


def test_run_has_a_line_for_every_round_and_one_validation_at_the_end_of_a_phase(whole_run: RunFolder) -> None:
    lines = read_rounds(whole_run)

    assert [(line["phase"], line["round"], line["train_loss"] is not None) for line in lines] == [
        *(("unimodal", 1, True), ("unimodal", 1, False)),
        *(("fusion", 2, True), ("fusion", 3, True), ("fusion", 3, False)),
        *(("joint", 4, True), ("joint", 4, False)),
    ]
    assert all(line["answered"] == line["asked"] == ["east", "north", "south", "west"] for line in lines)
    assert all(line["n"] == 48 for line in lines)


def test_model_holds_every_learned_weight_of_the_study(whole_run: RunFolder, cohort: Path) -> None:
    names = build_model(load_schema(cohort / "schema.toml"), _phases()).learned_names()

    assert set(load_file(whole_run.path / "model.safetensors")) == set(names)


def test_same_run_twice_gives_the_same_bytes(whole_run: RunFolder, cohort: Path, tmp_path: Path) -> None:
    again = run_small_study(cohort, tmp_path / "run", settings=_phases())

    assert read_weights(again) == read_weights(whole_run)
    assert read_rounds(again, without=("seconds",)) == read_rounds(whole_run, without=("seconds",))
    for name in ("metrics.json", "model.json", "quality.json"):
        assert (again.path / name).read_bytes() == (whole_run.path / name).read_bytes()


def test_another_seed_gives_another_model(whole_run: RunFolder, cohort: Path, tmp_path: Path) -> None:
    other = run_small_study(cohort, tmp_path / "run", settings=_phases(seed=1))

    assert read_weights(other) != read_weights(whole_run)


# 1 handshake, 2-3 data quality, 4 statistics, 5 unimodal, 6 its validation, 7-8 fusion, 9, 10 joint, 11, 12 test
@pytest.mark.parametrize("asked", range(12))
def test_run_interrupted_at_any_question_resumes_to_the_same_bytes(
    asked: int, whole_run: RunFolder, cohort: Path, tmp_path: Path
) -> None:
    workers = open_workers(cohort, tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt):
        run_small_study(
            cohort, tmp_path / "run", settings=_phases(), link=InterruptedLink(InProcessLink(workers), at=asked)
        )

    resumed = run_small_study(cohort, tmp_path / "run", settings=_phases(), link=InProcessLink(workers), resume=True)

    assert read_weights(resumed) == read_weights(whole_run)
    assert read_rounds(resumed) == read_rounds(whole_run)
    for name in ("metrics.json", "quality.json"):
        assert (resumed.path / name).read_bytes() == (whole_run.path / name).read_bytes()


def test_resume_with_other_settings_is_refused(cohort: Path, tmp_path: Path) -> None:
    run_small_study(cohort, tmp_path / "run", settings=small_settings(rounds_fusion=1))

    with pytest.raises(SettingsError, match="learning-rate"):
        run_small_study(
            cohort, tmp_path / "run", settings=small_settings(rounds_fusion=1, learning_rate=0.5), resume=True
        )


def test_workers_need_no_memory_between_questions(cohort: Path, tmp_path: Path) -> None:
    """Every question is answered by a new worker, as after a restart of the hospital."""

    class Forgetful(InProcessLink):
        def ask(self, kind: str, questions: Any, *, deadline_s: float) -> Any:
            yield from InProcessLink(open_workers(cohort, tmp_path / "cache")).ask(
                kind, questions, deadline_s=deadline_s
            )

    settings = _phases(rounds_unimodal=0)
    forgetful = run_small_study(
        cohort, tmp_path / "a", settings=settings, link=Forgetful(open_workers(cohort, tmp_path / "cache"))
    )
    steady = run_small_study(cohort, tmp_path / "b", settings=settings)

    assert read_weights(forgetful) == read_weights(steady)


def test_order_in_which_hospitals_answer_does_not_change_the_result(cohort: Path, tmp_path: Path) -> None:
    class Reversed(InProcessLink):
        def ask(self, kind: str, questions: Any, *, deadline_s: float) -> Any:
            yield from reversed(list(super().ask(kind, questions, deadline_s=deadline_s)))

    settings = _phases(rounds_unimodal=0)
    orders: list[Callable[[list[Worker]], InProcessLink]] = [InProcessLink, Reversed]
    runs = [
        run_small_study(
            cohort, tmp_path / str(i), settings=settings, link=link(open_workers(cohort, tmp_path / f"cache-{i}"))
        )
        for i, link in enumerate(orders)
    ]

    assert read_weights(runs[0]) == read_weights(runs[1])
    assert read_rounds(runs[0]) == read_rounds(runs[1])


def test_more_modalities_than_can_be_explained_are_refused_at_the_start_unless_nothing_is_explained() -> None:
    thirteen = "".join(f'[events.e{i}]\naggregate = "any"\nitems = ["given"]\n' for i in range(12))
    schema = parse_schema(STATIC_SCHEMA + thirteen, source="schema.toml")

    with pytest.raises(SettingsError, match=r"expected at most 12, .* got 13 \(static, e0, .*modalities=A,B"):
        check_settings(schema, small_settings())

    check_settings(schema, small_settings(explain="none"))
    check_settings(schema, small_settings(modalities="static,e3"))
