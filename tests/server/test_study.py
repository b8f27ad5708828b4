"""Whole runs in one process, over links that work, fail or stop."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from client.site import Site
from client.worker import Worker
from server.run_folder import RunFolder
from server.study import check_settings
from shared_model.config import Settings
from shared_model.errors import SettingsError, StudyError
from shared_model.fusion import build_model
from shared_model.messages import EVALUATE, STATISTICS, TRAIN, EvaluateRequest, TrainRequest
from shared_model.preprocessing import Preprocessing
from shared_model.schema import load_schema
from shared_model.score_quantities import unpack_scores
from shared_model.score_sums import CENTRES, sigmoid
from shared_model.updates import hash_weights
from simulation.in_process import InProcessLink
from tests.server.faulty_links import FAULTS, FaultyLink, InterruptedLink, RecordingLink
from tests.server.small_cohort import open_workers, run_small_study, small_settings, write_small_cohort

VARYING = ("seconds", "bytes_down", "bytes_up")
AFTER_HANDSHAKE = (STATISTICS, TRAIN, EVALUATE)


def _read_rounds(folder: RunFolder, *, without: tuple[str, ...] = VARYING) -> list[dict[str, Any]]:
    lines = (folder.path / "rounds.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in without} for line in lines]


def _read_weights(folder: RunFolder) -> bytes:
    return (folder.path / "model.safetensors").read_bytes()


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

    assert _read_weights(folder) == _read_weights(three_of_four)
    attended = ("asked", "failed")
    assert _read_rounds(folder, without=(*VARYING, *attended)) == _read_rounds(
        three_of_four, without=(*VARYING, *attended)
    )
    for line in _read_rounds(folder):
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

    assert [line["failed"] for line in _read_rounds(folder)] == [{"north": "no answer within 5 s"}, {}, {}, {}]


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
    assert model["file_sha256"] == hashlib.sha256(_read_weights(whole_run)).hexdigest()
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
    lines = _read_rounds(whole_run)

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

    assert _read_weights(again) == _read_weights(whole_run)
    assert _read_rounds(again, without=("seconds",)) == _read_rounds(whole_run, without=("seconds",))
    for name in ("metrics.json", "model.json"):
        assert (again.path / name).read_bytes() == (whole_run.path / name).read_bytes()


def test_another_seed_gives_another_model(whole_run: RunFolder, cohort: Path, tmp_path: Path) -> None:
    other = run_small_study(cohort, tmp_path / "run", settings=_phases(seed=1))

    assert _read_weights(other) != _read_weights(whole_run)


# 1 handshake, 2 statistics, 3 unimodal, 4 its validation, 5-6 fusion, 7, 8 joint, 9, 10 test
@pytest.mark.parametrize("asked", range(10))
def test_run_interrupted_at_any_question_resumes_to_the_same_bytes(
    asked: int, whole_run: RunFolder, cohort: Path, tmp_path: Path
) -> None:
    workers = open_workers(cohort, tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt):
        run_small_study(
            cohort, tmp_path / "run", settings=_phases(), link=InterruptedLink(InProcessLink(workers), at=asked)
        )

    resumed = run_small_study(cohort, tmp_path / "run", settings=_phases(), link=InProcessLink(workers), resume=True)

    assert _read_weights(resumed) == _read_weights(whole_run)
    assert _read_rounds(resumed) == _read_rounds(whole_run)
    assert (resumed.path / "metrics.json").read_bytes() == (whole_run.path / "metrics.json").read_bytes()


def test_resume_with_other_settings_is_refused(cohort: Path, tmp_path: Path) -> None:
    run_small_study(cohort, tmp_path / "run", settings=small_settings(rounds_fusion=1))

    with pytest.raises(SettingsError, match="learning-rate"):
        run_small_study(
            cohort, tmp_path / "run", settings=small_settings(rounds_fusion=1, learning_rate=0.5), resume=True
        )


# ---------------------------------------------------------------------------------------------------------- learning


def test_one_full_batch_step_of_three_hospitals_is_the_step_on_their_pooled_patients(tmp_path: Path) -> None:
    """McMahan et al. 2017: with one local step on all patients FedAvg is gradient descent on the pooled loss."""
    cohort = write_small_cohort(tmp_path / "cohort")
    for index, name in enumerate(("east", "north", "south")):  # unequal sizes, so that weights by patients matter
        table = cohort / name / "patients.csv"
        table.write_text("".join(table.read_text().splitlines(keepends=True)[: 61 - 15 * index]))
    settings = small_settings(
        rounds_fusion=1,
        batch_size=1000,
        learning_rate=0.2,
        max_gradient_norm=1e6,
        head_weight_decay=0.3,
        momentum=0.0,
    )
    schema = load_schema(cohort / "schema.toml")

    folder = run_small_study(cohort, tmp_path / "run", settings=settings)

    preprocessing = Preprocessing.from_json(json.loads((folder.path / "model.json").read_text())["preprocessing"])
    sites = [Site(name, cohort / name, tmp_path / "cache") for name in ("east", "north", "south")]
    batches = [
        preprocessing.batch(site.patients, site.split(settings).train, schema=schema, device=torch.device("cpu"))
        for site in sites
    ]
    numbers, levels, outcome = (
        torch.cat([getattr(batch, part) for batch in batches]) for part in ("numbers", "levels", "outcome")
    )
    assert len({len(batch.outcome) for batch in batches}) == 3
    n, deaths = len(outcome), float(outcome.sum())
    model = build_model(schema, settings)
    with torch.no_grad():
        for bias in (model.head.linear.bias, model.unimodal["static"].bias):  # type: ignore[union-attr]
            bias.fill_(np.log(deaths / (n - deaths)))  # type: ignore[operator]
    inputs = model.encoders["static"](numbers, levels)
    logit = model.head(inputs)  # type: ignore[operator]
    loss = nn.functional.binary_cross_entropy_with_logits(logit, outcome)
    loss.backward()  # type: ignore[no-untyped-call]
    trained = load_file(folder.path / "model.safetensors")
    for name, parameter in model.named_parameters():
        if name.startswith("head."):
            decay = 0.3 if parameter.ndim == 2 else 0.0
            expected = parameter - 0.2 * (parameter.grad + decay * parameter)  # type: ignore[operator]
            np.testing.assert_allclose(trained[name], expected.detach().numpy(), rtol=1e-4, atol=1e-6)
    # the bias starts at the pooled odds, where its gradient is zero
    assert not np.allclose(trained["head.linear.weight"], model.head.linear.weight.detach().numpy(), atol=1e-3)  # type: ignore[union-attr,operator]


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_mean_predicted_risk_is_near_the_prevalence_with_any_class_weight(
    class_weight: str, cohort: Path, tmp_path: Path
) -> None:
    folder = run_small_study(
        cohort,
        tmp_path / "run",
        settings=small_settings(rounds_fusion=8, learning_rate=0.2, class_weight=class_weight),
    )

    scores = unpack_scores(folder.read_scores())
    model = json.loads((folder.path / "model.json").read_text())
    in_training = Preprocessing.from_json(model["preprocessing"]).events
    # with any weight it starts at the odds of the training part; of 72 deaths the other two parts have the rest
    in_validation = (72 - in_training - scores.events) / 48
    risk = in_training / 144
    base_rate_loss = -in_validation * np.log(risk) - (1 - in_validation) * np.log(1 - risk)
    assert _read_rounds(folder)[0]["val_loss"] == pytest.approx(base_rate_loss, rel=1e-6)
    events = model["event_weight"]
    preprocessing = Preprocessing.from_json(model["preprocessing"])
    expected = 1.0 if class_weight == "none" else (preprocessing.n - preprocessing.events) / preprocessing.events
    assert events == pytest.approx(expected)
    mean_risk = float((scores.counts.sum(axis=0) * sigmoid(CENTRES)).sum() / scores.n)
    # weighted, and not corrected, the mean risk would be near 0.5
    assert mean_risk == pytest.approx(scores.events / scores.n, abs=0.07)
    assert json.loads((folder.path / "metrics.json").read_text())["test"]["pooled"]["auc"] > 0.75


def test_training_lowers_the_validation_loss(cohort: Path, tmp_path: Path) -> None:
    folder = run_small_study(cohort, tmp_path / "run", settings=small_settings(rounds_fusion=6, learning_rate=0.2))

    losses = [line["val_loss"] for line in _read_rounds(folder)]
    assert min(losses) < losses[0] - 0.05


# ------------------------------------------------------------------------------------------------------------ images


def test_hospital_that_lost_its_state_is_sent_the_frozen_weights_again(cohort: Path, tmp_path: Path) -> None:
    workers = open_workers(cohort, tmp_path / "cache")
    link = RecordingLink(InProcessLink(workers))
    rounds: list[int] = []

    def lose_state(_: str, answer: Any) -> Any:
        rounds.append(1)
        if len(rounds) == 1:
            shutil.rmtree(workers[1].site.state_dir / "runs")
        return answer

    folder = run_small_study(
        cohort,
        tmp_path / "run",
        settings=small_settings(rounds_fusion=3),
        link=FaultyLink(link, 1, lose_state, (TRAIN,)),
    )

    lines = _read_rounds(folder)
    assert [list(line["failed"]) for line in lines] == [[], ["north"], [], []]
    assert lines[1]["failed"]["north"] == "frozen weights: not held here. Send them with the question."
    sent = [
        bool(TrainRequest.from_record(record).frozen)
        for kind, node, record in link.questions
        if kind == TRAIN and node == 1
    ]
    assert sent == [True, False, True]


@pytest.fixture(scope="session")
def local_norm_run(image_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RecordingLink]:
    folder = tmp_path_factory.mktemp("fedbn")
    link = RecordingLink(InProcessLink(open_workers(image_cohort, folder / "cache")))
    settings = small_settings(rounds_fusion=0, rounds_joint=1, local_norm=True, patience=1)
    return run_small_study(image_cohort, folder / "run", settings=settings, link=link), link


def test_fedbn_never_changes_the_global_batch_norm(
    local_norm_run: tuple[RunFolder, RecordingLink], image_cohort: Path
) -> None:
    folder, link = local_norm_run
    model = build_model(load_schema(image_cohort / "schema.toml"), small_settings())
    start = {name: value.numpy() for name, value in model.state_dict().items()}

    final = load_file(folder.path / "model.safetensors")
    trained = next(EvaluateRequest.from_record(record) for kind, _, record in link.questions if kind == EVALUATE)

    assert len(model.batch_norm_names()) == 20 * 4  # ResNet-18 has 20 BatchNorm layers
    for name in model.batch_norm_names():
        np.testing.assert_array_equal(trained.weights[name], start[name])
        np.testing.assert_array_equal(final[name], start[name])
    filters = "encoders.hip.network.conv1.weight"
    assert not np.array_equal(trained.weights[filters], start[filters])


def test_fedbn_sends_no_batch_norm_back_and_keeps_one_at_each_hospital(
    local_norm_run: tuple[RunFolder, RecordingLink], image_cohort: Path
) -> None:
    folder, link = local_norm_run
    model = build_model(load_schema(image_cohort / "schema.toml"), small_settings())

    requests = [TrainRequest.from_record(record) for kind, _, record in link.questions if kind == TRAIN]

    # a reply holds an update for each of the request's weights, and for nothing else
    assert requests
    assert not any(set(request.weights) & model.batch_norm_names() for request in requests)
    kept = sorted((folder.path.parent / "cache").glob("sites/*/runs/*/norms/000001.safetensors"))
    assert len(kept) == 3
    assert len({path.read_bytes() for path in kept}) == 3


def test_fedbn_is_refused_without_images(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="local-norm: expected a study with images"):
        run_small_study(cohort, tmp_path / "run", settings=small_settings(local_norm=True))


def test_settings_for_images_are_refused_when_the_chosen_modalities_have_none(image_cohort: Path) -> None:
    schema = load_schema(image_cohort / "schema.toml")

    check_settings(schema, small_settings(local_norm=True))
    with pytest.raises(SettingsError, match="local-norm"):
        check_settings(schema, small_settings(local_norm=True, modalities="static"))
    with pytest.raises(SettingsError, match="image-weights"):
        check_settings(schema, small_settings(image_weights="resnet.pth", modalities="static"))


def test_study_with_images_goes_through_all_phases(image_cohort: Path, tmp_path: Path) -> None:
    link = RecordingLink(InProcessLink(open_workers(image_cohort, tmp_path / "cache")))
    settings = small_settings(rounds_unimodal=1, rounds_fusion=1, rounds_joint=1)

    folder = run_small_study(image_cohort, tmp_path / "run", settings=settings, link=link)

    lines = _read_rounds(folder)
    assert [line["phase"] for line in lines] == ["unimodal"] * 2 + ["fusion"] * 2 + ["joint"] * 2
    start = build_model(load_schema(image_cohort / "schema.toml"), settings).state_dict()
    scored = [
        EvaluateRequest.from_record(record).weights
        for kind, node, record in link.questions
        if kind == EVALUATE and node == 0
    ]
    # after the unimodal round, the fusion round, the joint round, and of the best model
    moment, head, filters = (
        "encoders.hip.network.bn1.running_var",
        "head.linear.weight",
        "encoders.hip.network.conv1.weight",
    )
    assert len(scored) == 4
    assert not np.allclose(scored[0][moment], start[moment].numpy(), atol=1e-3)  # pooled over hospitals
    np.testing.assert_array_equal(scored[0][head], start[head].numpy())
    np.testing.assert_array_equal(scored[1][filters], scored[0][filters])
    assert not np.array_equal(scored[1][head], scored[0][head])
    assert not np.array_equal(scored[2][filters], scored[1][filters])


def test_patient_that_changed_is_encoded_anew(tmp_path: Path) -> None:
    """Kept embeddings belong to the patients they were made of: other validation patients give another loss."""
    cohort = write_small_cohort(tmp_path / "cohort")
    settings = small_settings(rounds_fusion=3)
    first = run_small_study(cohort, tmp_path / "run-1", settings=settings, cache_dir=tmp_path / "cache")
    site = Site("east", cohort / "east", tmp_path / "cache")
    validation = {site.patients.patient_ids[row] for row in site.split(settings).val}
    table = pd.read_csv(cohort / "east" / "patients.csv")
    table.loc[table["patient_id"].isin(validation), "age"] = 60.0  # the training part stays as it is
    table.to_csv(cohort / "east" / "patients.csv", index=False)

    again = run_small_study(cohort, tmp_path / "run-2", settings=settings, cache_dir=tmp_path / "cache")
    fresh = run_small_study(cohort, tmp_path / "run-3", settings=settings, cache_dir=tmp_path / "other")

    losses = [[line["val_loss"] for line in _read_rounds(folder)] for folder in (first, again, fresh)]
    assert losses[0] != losses[2]
    assert losses[1] == losses[2]


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

    assert _read_weights(forgetful) == _read_weights(steady)


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

    assert _read_weights(runs[0]) == _read_weights(runs[1])
    assert _read_rounds(runs[0]) == _read_rounds(runs[1])
