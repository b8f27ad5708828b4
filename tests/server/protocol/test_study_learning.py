"""What a whole run learns, and what of the model travels and stays: steps, class weights, frozen encoders, FedBN."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from client.site import Site
from server.run_folder.folder import RunFolder
from server.settings_check import check_settings
from shared_model.errors import SettingsError
from shared_model.evaluation.score_quantities import unpack_scores
from shared_model.evaluation.score_sums import CENTRES, sigmoid
from shared_model.model.fusion import build_model
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.protocol.messages import EVALUATE, TRAIN, EvaluateRequest, TrainRequest
from shared_model.schema import load_schema
from simulation.in_process import InProcessLink
from tests.server.faulty_links import FaultyLink, RecordingLink
from tests.server.small_cohort import (
    open_workers,
    read_rounds,
    run_small_study,
    small_settings,
    write_small_cohort,
)


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
        head_penalty=30.0,
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
            decay = 30 / n if parameter.ndim == 2 else 0.0
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
    assert read_rounds(folder)[0]["val_loss"] == pytest.approx(base_rate_loss, rel=1e-6)
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

    losses = [line["val_loss"] for line in read_rounds(folder)]
    assert min(losses) < losses[0] - 0.05


# ------------------------------------------------------------------------------------------------------------ images


def test_hospital_that_lost_its_state_is_sent_the_frozen_weights_again_within_the_round(
    cohort: Path, tmp_path: Path
) -> None:
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

    lines = read_rounds(folder)
    assert [list(line["failed"]) for line in lines] == [[], [], [], []]
    sent = [
        bool(TrainRequest.from_record(record).frozen)
        for kind, node, record in link.questions
        if kind == TRAIN and node == 1
    ]
    assert sent == [True, False, True, False]  # asked again within the round, with them


@pytest.fixture(scope="session")
def local_norm_run(image_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RecordingLink]:
    folder = tmp_path_factory.mktemp("fedbn")
    link = RecordingLink(InProcessLink(open_workers(image_cohort, folder / "cache")))
    settings = small_settings(rounds_fusion=0, rounds_joint=1, local_norm=True, image_training="trained", patience=1)
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

    check_settings(schema, small_settings(local_norm=True, image_training="trained"))
    with pytest.raises(SettingsError, match=r"expected image-training=trained .* got fixed"):
        check_settings(schema, small_settings(local_norm=True))
    with pytest.raises(SettingsError, match="local-norm"):
        check_settings(schema, small_settings(local_norm=True, modalities="static"))
    with pytest.raises(SettingsError, match="image-weights"):
        check_settings(schema, small_settings(image_weights="resnet.pth", modalities="static"))


def test_study_with_images_goes_through_all_phases(image_cohort: Path, tmp_path: Path) -> None:
    link = RecordingLink(InProcessLink(open_workers(image_cohort, tmp_path / "cache")))
    settings = small_settings(  # with this seed every phase ends better than it began, so its weights are kept
        seed=1, image_training="trained", rounds_unimodal=1, rounds_fusion=1, rounds_joint=1
    )

    folder = run_small_study(image_cohort, tmp_path / "run", settings=settings, link=link)

    lines = read_rounds(folder)
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

    losses = [[line["val_loss"] for line in read_rounds(folder)] for folder in (first, again, fresh)]
    assert losses[0] != losses[2]
    assert losses[1] == losses[2]
