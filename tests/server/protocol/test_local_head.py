"""FedPer: the head trains at each hospital and stays there."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flwr.app import RecordDict
from safetensors.numpy import load_file

from server.run_folder.folder import RunFolder
from shared_model.model.fusion import build_model
from shared_model.protocol.messages import (
    EVALUATE,
    TRAIN,
    EvaluateReply,
    EvaluateRequest,
    Refusal,
    TrainRequest,
    is_message,
)
from shared_model.schema import load_schema
from simulation.in_process import InProcessLink
from tests.server.faulty_links import InterruptedLink, RecordingLink
from tests.server.small_cohort import (
    open_workers,
    read_rounds,
    read_weights,
    run_small_study,
    small_settings,
    write_small_cohort,
)

HEAD = "head.linear.weight"
SETTINGS = small_settings(
    local_head=True,
    rounds_unimodal=2,
    rounds_fusion=6,
    rounds_joint=2,
    learning_rate=0.3,
    patience=3,
    explain="modalities",
)


@pytest.fixture(scope="module")
def opposed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the south the young die, elsewhere the old."""
    cohort = write_small_cohort(tmp_path_factory.mktemp("opposed") / "cohort", series=True)
    path = cohort / "south" / "patients.csv"
    table = pd.read_csv(path)
    table["died"] = (table["age"].rank(method="first") <= 18).astype(int)
    table.to_csv(path, index=False)
    return cohort


@pytest.fixture(scope="module")
def personal(opposed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RecordingLink]:
    folder = tmp_path_factory.mktemp("personal")
    link = RecordingLink(InProcessLink(open_workers(opposed, folder / "cache")))
    return run_small_study(opposed, folder / "run", settings=SETTINGS, link=link), link


def _heads(folder: RunFolder) -> list[np.ndarray]:
    kept = sorted((folder.path.parent / "cache").glob("sites/*/runs/*/head"))
    return [load_file(max(path.iterdir()))[HEAD] for path in kept]


def test_head_never_travels_and_differs_between_hospitals(personal: tuple[RunFolder, RecordingLink]) -> None:
    folder, link = personal

    requests = [TrainRequest.from_record(record) for kind, _, record in link.questions if kind == TRAIN]
    assert {request.phase for request in requests} == {"unimodal", "fusion", "joint"}
    assert not any(name.startswith(("head.", "absent.")) for request in requests for name in request.weights)
    east, north, south = _heads(folder)
    assert np.abs(south - east).max() > 1e-2
    assert np.abs(north - east).max() > 1e-4


def test_run_folder_holds_the_head_that_hospitals_start_from_and_says_what_they_keep(
    personal: tuple[RunFolder, RecordingLink], opposed: Path
) -> None:
    folder, _ = personal
    start = build_model(load_schema(opposed / "schema.toml"), SETTINGS).state_dict()

    written = load_file(folder.path / "model.safetensors")
    model = json.loads((folder.path / "model.json").read_text())

    for name in (HEAD, "head.perceptron.0.weight", "absent.vitals"):
        np.testing.assert_array_equal(written[name], start[name].numpy())
    assert model["kept_by_hospitals"] == ["head"]
    assert set(model["trained_phases"]) <= {"unimodal", "fusion", "joint"}
    assert "fusion" in model["trained_phases"]


def test_head_of_its_own_serves_a_hospital_that_differs(
    personal: tuple[RunFolder, RecordingLink], opposed: Path, tmp_path: Path
) -> None:
    common = run_small_study(
        opposed, tmp_path / "run", settings=SETTINGS.model_copy(update={"local_head": False, "explain": "none"})
    )

    def log_loss(folder: RunFolder) -> float:
        metrics = json.loads((folder.path / "metrics.json").read_text())
        return float(metrics["test"]["pooled"]["log_loss"])

    assert log_loss(personal[0]) < log_loss(common) - 0.02


def test_hospitals_explain_with_their_own_heads(personal: tuple[RunFolder, RecordingLink]) -> None:
    explanations = json.loads((personal[0].path / "explanations.json").read_text())

    assert explanations["n"] == 36
    assert explanations["failed"] == {}
    assert explanations["base_logit"] is None  # each hospital's head has its own


def _answer(cohort: Path, cache: Path, record: RecordDict) -> RecordDict:
    return open_workers(cohort, cache, names=["east"])[0].answer(EVALUATE, record)


def test_model_is_refused_by_a_hospital_that_has_no_head(
    personal: tuple[RunFolder, RecordingLink], opposed: Path, tmp_path: Path
) -> None:
    folder, link = personal
    question = next(
        record
        for kind, node, record in reversed(link.questions)
        if kind == EVALUATE and node == 0 and EvaluateRequest.from_record(record).weights
    )

    assert is_message(_answer(opposed, folder.path.parent / "cache", question), EvaluateReply)
    elsewhere = _answer(opposed, tmp_path / "cache", question)
    assert Refusal.from_record(elsewhere).reason.startswith("fusion head (local-head): expected this hospital's own")


def test_hospital_that_lost_its_head_starts_from_the_seeds(opposed: Path, tmp_path: Path) -> None:
    workers = open_workers(opposed, tmp_path / "cache")
    settings = small_settings(local_head=True, rounds_fusion=1, explain="none", min_sites=1)
    first = RecordingLink(InProcessLink(workers))
    run_small_study(opposed, tmp_path / "run", settings=settings, link=first)
    question = next(record for kind, node, record in first.questions if kind == TRAIN and node == 0)
    request = TrainRequest.from_record(question)
    later = request.model_copy(update={"round_number": 1, "weights_round": 1})
    light = later.model_copy(update={"frozen": {}})
    worker = workers[0]

    assert not is_message(worker.answer(TRAIN, light.to_record()), Refusal)
    shutil.rmtree(next(worker.site.state_dir.glob("runs/*/head")))
    asked = worker.answer(TRAIN, light.to_record())
    assert Refusal.from_record(asked).code == "needs-weights"
    assert not is_message(worker.answer(TRAIN, later.to_record()), Refusal)


def test_run_whose_training_brought_nothing_is_evaluated_with_the_start_head(opposed: Path, tmp_path: Path) -> None:
    settings = small_settings(local_head=True, head="", rounds_fusion=2, learning_rate=10.0, patience=2, explain="none")

    folder = run_small_study(opposed, tmp_path / "run", settings=settings)

    model = json.loads((folder.path / "model.json").read_text())
    assert (model["rounds"], model["trained_phases"]) == (0, [])
    assert json.loads((folder.path / "metrics.json").read_text())["test"]["failed"] == {}


def test_resumed_run_goes_on_with_the_heads_of_the_best_round(opposed: Path, tmp_path: Path) -> None:
    whole = run_small_study(
        opposed, tmp_path / "whole", settings=SETTINGS, link=InProcessLink(open_workers(opposed, tmp_path / "cache-1"))
    )
    workers = open_workers(opposed, tmp_path / "cache-2")

    with pytest.raises(KeyboardInterrupt):
        run_small_study(opposed, tmp_path / "run", settings=SETTINGS, link=InterruptedLink(InProcessLink(workers), 9))
    resumed = run_small_study(opposed, tmp_path / "run", settings=SETTINGS, link=InProcessLink(workers), resume=True)

    assert read_rounds(resumed) == read_rounds(whole)
    assert read_weights(resumed) == read_weights(whole)
