"""SCAFFOLD over whole rounds: two hospitals that disagree, and several local epochs."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from server.protocol.link import Answer
from server.run_folder.checkpoints import load_progress
from server.run_folder.folder import RunFolder
from shared_model.config import Scalar, Settings
from shared_model.protocol.messages import TRAIN, TrainRequest
from shared_model.training.updates import Weights
from simulation.in_process import InProcessLink
from tests.server.faulty_links import FaultyLink, RecordingLink, StoppedWithin
from tests.server.pooled_inputs import fused_training_inputs, last_head, pooled_optimum
from tests.server.small_cohort import (
    open_workers,
    read_rounds,
    read_weights,
    run_small_study,
    small_settings,
    write_small_cohort,
)

PENALTY = 5.0
NAMES = ("east", "north")


@pytest.fixture(scope="module")
def opposed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 patients in the east, where the old die, and 40 in the north, where the young do."""
    cohort = write_small_cohort(tmp_path_factory.mktemp("opposed") / "cohort", hospitals=2)
    path = cohort / "north" / "patients.csv"
    table = pd.read_csv(path).iloc[:40]
    table["died"] = (table["age"].rank(method="first") <= 16).astype(int)
    table.to_csv(path, index=False)
    return cohort


def _settings(**changes: Scalar) -> Settings:
    values: dict[str, Scalar] = {
        "strategy": "scaffold",
        "head": "",
        "head_penalty": PENALTY,
        "local_epochs": 10,
        "batch_size": 1000,
        "learning_rate": 0.3,
        "max_gradient_norm": 1e6,
        "rounds_fusion": 4,
        "patience": 1000,
        "min_sites": 2,
        "explain": "none",
    }
    return small_settings(**{**values, **changes})


def _run(cohort: Path, folder: Path, **changes: Scalar) -> tuple[RunFolder, RecordingLink]:
    link = RecordingLink(InProcessLink(open_workers(cohort, folder / "cache", names=NAMES)))
    return run_small_study(cohort, folder / "run", settings=_settings(**changes), link=link), link


def test_scaffold_reaches_the_pooled_optimum_from_which_fedavg_stays_away(opposed: Path, tmp_path: Path) -> None:
    scaffold, scaffold_link = _run(opposed, tmp_path / "scaffold", rounds_fusion=120)
    _, fedavg_link = _run(opposed, tmp_path / "fedavg", rounds_fusion=120, strategy="fedavg")
    inputs, outcome = fused_training_inputs(
        opposed, scaffold, _settings(), names=NAMES, cache_dir=tmp_path / "scaffold" / "cache"
    )
    optimum = pooled_optimum(inputs, outcome, penalty=PENALTY)

    assert np.abs(last_head(scaffold_link) - optimum).max() < 2e-4
    assert np.abs(last_head(fedavg_link) - optimum).max() > 2e-2


def test_first_round_is_that_of_fedavg(opposed: Path, tmp_path: Path) -> None:
    heads = [
        last_head(_run(opposed, tmp_path / strategy, rounds_fusion=1, batch_size=8, strategy=strategy)[1])
        for strategy in ("fedavg", "scaffold")
    ]

    assert np.abs(heads[0]).max() > 0.05
    np.testing.assert_array_equal(heads[1], heads[0])


def _mean_of_kept(folder: Path, round_number: int) -> Weights:
    """Mean of the hospitals' own control variates after a round, by training patients: 36 and 24."""
    kept = [
        load_file(next((folder / "cache").glob(f"sites/{name}-*/runs/*/control/{round_number:06d}.safetensors")))
        for name in NAMES
    ]
    return {name: (36 * kept[0][name] + 24 * kept[1][name]) / 60 for name in kept[0]}


@pytest.mark.parametrize("batch_size", [8, 1000])
def test_servers_control_variate_is_the_mean_of_the_hospitals(opposed: Path, tmp_path: Path, batch_size: int) -> None:
    _, link = _run(opposed, tmp_path, batch_size=batch_size, rounds_fusion=4)

    # the last question carries the control variate after three rounds; hospitals keep the last two
    requests = [TrainRequest.from_record(record) for kind, _, record in link.questions if kind == TRAIN]
    assert [request.counted_round for request in requests] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert not requests[0].control
    expected = _mean_of_kept(tmp_path, 3)
    assert np.abs(expected["head.linear.weight"]).max() > 1e-3
    for name, value in requests[-1].control.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-6)


def _too_late(*rounds: int) -> Callable[[str, Answer], Answer]:
    """The answers to the questions with these numbers come after the deadline: worked out, and not counted."""
    asked: list[int] = []

    def spoil(_: str, answer: Answer) -> Answer:
        asked.append(1)
        return Answer(answer.node, None, "no answer within 5 s") if len(asked) in rounds else answer

    return spoil


def test_hospital_whose_answers_came_too_late_goes_on_from_the_one_that_counted(opposed: Path, tmp_path: Path) -> None:
    link = RecordingLink(InProcessLink(open_workers(opposed, tmp_path / "cache", names=NAMES)))
    settings = _settings(rounds_fusion=120, min_sites=1)

    folder = run_small_study(
        opposed, tmp_path / "run", settings=settings, link=FaultyLink(link, 1, _too_late(2, 3), (TRAIN,))
    )

    assert [list(line["failed"]) for line in read_rounds(folder)[:5]] == [[], ["north"], ["north"], [], []]
    asked = [
        TrainRequest.from_record(record).counted_round
        for kind, node, record in link.questions
        if kind == TRAIN and node == 1
    ]
    assert asked[:6] == [0, 1, 1, 1, 4, 5]
    inputs, outcome = fused_training_inputs(opposed, folder, settings, names=NAMES, cache_dir=tmp_path / "cache")
    assert np.abs(last_head(link) - pooled_optimum(inputs, outcome, penalty=PENALTY)).max() < 2e-4


def test_hospital_that_lost_its_control_variates_is_named_and_left_out(opposed: Path, tmp_path: Path) -> None:
    workers = open_workers(opposed, tmp_path / "cache", names=NAMES)

    def lose(_: str, answer: Any) -> Any:
        for kept in workers[1].site.state_dir.glob("runs/*/control"):
            shutil.rmtree(kept)
        return answer

    link = FaultyLink(InProcessLink(workers), 1, lose, (TRAIN,))
    folder = run_small_study(opposed, tmp_path / "run", settings=_settings(min_sites=1), link=link)

    lines = read_rounds(folder)
    assert not lines[0]["failed"]
    assert lines[1]["failed"]["north"].startswith("control variates (scaffold): expected those that this hospital kept")


@pytest.mark.parametrize("questions", [3, 5, 7])
def test_scaffold_stopped_within_a_round_resumes_to_the_same_bytes(
    opposed: Path, tmp_path: Path, questions: int
) -> None:
    """The hospital's control variates have gone on where the coordinator's have not."""
    settings = _settings(rounds_unimodal=2, rounds_fusion=4, batch_size=8)
    whole = run_small_study(
        opposed,
        tmp_path / "whole",
        settings=settings,
        link=InProcessLink(open_workers(opposed, tmp_path / "cache-1", names=NAMES)),
    )
    workers = open_workers(opposed, tmp_path / "cache-2", names=NAMES)

    with pytest.raises(KeyboardInterrupt):
        run_small_study(
            opposed, tmp_path / "run", settings=settings, link=StoppedWithin(InProcessLink(workers), questions)
        )
    resumed = run_small_study(opposed, tmp_path / "run", settings=settings, link=InProcessLink(workers), resume=True)

    assert read_rounds(resumed) == read_rounds(whole)
    assert read_weights(resumed) == read_weights(whole)


def test_control_variates_start_anew_in_each_phase(opposed: Path, tmp_path: Path) -> None:
    folder, link = _run(opposed, tmp_path, rounds_unimodal=2, rounds_fusion=2)

    asked = [
        (request.phase, request.counted_round, bool(request.control))
        for kind, node, record in link.questions
        if kind == TRAIN and node == 0
        for request in [TrainRequest.from_record(record)]
    ]
    assert asked == [("unimodal", 0, False), ("unimodal", 1, True), ("fusion", 0, False), ("fusion", 3, True)]
    assert not load_progress(folder.checkpoints).strategy_state
