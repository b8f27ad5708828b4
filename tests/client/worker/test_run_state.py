import os
from pathlib import Path

import pytest
import torch

from client.site import Site
from client.worker.run_state import RunState, forget_old_runs
from shared_model.model.fusion import MultimodalModel, build_model
from shared_model.training.epochs import Encoded
from tests.server.small_cohort import small_settings, write_small_cohort

CPU = torch.device("cpu")


@pytest.fixture
def state(tmp_path: Path) -> RunState:
    return RunState.of(tmp_path, "run-1")


@pytest.fixture
def image_model(tmp_path: Path) -> MultimodalModel:
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=1, patients=10, images=True)
    return build_model(
        Site("east", cohort / "east", tmp_path / "cache").schema,
        small_settings(local_norm=True, image_training="trained"),
    )


def _encoded(value: float) -> Encoded:
    return Encoded(
        {"static": torch.full((2, 3), value)}, {"static": torch.tensor([True, False])}, torch.tensor([0.0, 1.0])
    )


def test_embeddings_come_back_under_their_key_and_part_only(state: RunState) -> None:
    state.save_embeddings("train", "key", _encoded(1.5))

    held = state.load_embeddings("train", "key", device=CPU)

    assert held is not None
    assert torch.equal(held.embeddings["static"], torch.full((2, 3), 1.5))
    assert held.present["static"].tolist() == [True, False]
    assert held.outcome.tolist() == [0.0, 1.0]
    assert state.load_embeddings("val", "key", device=CPU) is None
    assert state.load_embeddings("train", "other", device=CPU) is None


def test_runs_side_by_side_do_not_meet(tmp_path: Path, state: RunState) -> None:
    state.save_embeddings("train", "key", _encoded(1.0))

    assert RunState.of(tmp_path, "run-2").load_embeddings("train", "key", device=CPU) is None


@pytest.mark.parametrize("content", [b"", b"junk" * 50])
def test_damaged_embeddings_count_as_none(state: RunState, content: bytes) -> None:
    state.save_embeddings("train", "key", _encoded(1.0))
    for path in state.folder.rglob("*.safetensors"):
        path.write_bytes(content)

    assert state.load_embeddings("train", "key", device=CPU) is None


def test_files_that_hold_patients_embeddings_are_private(state: RunState) -> None:
    state.save_embeddings("train", "key", _encoded(1.0))

    for path in state.folder.rglob("*.safetensors"):
        assert path.stat().st_mode & 0o077 == 0


def test_latest_norms_before_a_round_are_loaded(state: RunState, image_model: MultimodalModel) -> None:
    name = "encoders.hip.network.bn1.weight"
    for after_round, value in ((1, 10.0), (3, 30.0)):
        with torch.no_grad():
            image_model.state_dict()[name].fill_(value)
        state.save_home(image_model, "joint", after_round=after_round)

    loaded = {}
    for before_round in range(5):
        with torch.no_grad():
            image_model.state_dict()[name].fill_(-1.0)
        found = state.load_home(image_model, before_round=before_round)
        loaded[before_round] = (name in found, float(image_model.state_dict()[name][0]))

    assert loaded == {0: (False, -1.0), 1: (True, 10.0), 2: (True, 10.0), 3: (True, 30.0), 4: (True, 30.0)}


def test_norms_hold_batch_norm_and_nothing_else(state: RunState, image_model: MultimodalModel) -> None:
    state.save_home(image_model, "joint", after_round=1)
    filters = "encoders.hip.network.conv1.weight"
    with torch.no_grad():
        image_model.state_dict()[filters].fill_(7.0)

    state.load_home(image_model, before_round=1)

    assert bool((image_model.state_dict()[filters] == 7.0).all())


def test_each_part_comes_from_the_last_round_that_trained_it(tmp_path: Path, state: RunState) -> None:
    """The vital signs' own head of late fusion trains in phase `unimodal`, the weights of the heads do not."""
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=1, patients=10)
    schema = Site("east", cohort / "east", tmp_path / "cache").schema
    model = build_model(schema, small_settings(fusion="late", local_head=True))
    values = model.state_dict()
    for phase, after_round, value in (("fusion", 1, 1.0), ("unimodal", 2, 2.0), ("fusion", 3, 3.0)):
        for tensor in values.values():
            tensor.fill_(value)
        state.save_home(model, phase, after_round=after_round)  # type: ignore[arg-type]
    for tensor in values.values():
        tensor.fill_(-1.0)

    found = state.load_home(model, before_round=3, discarded=((2, 3),))

    assert found == {"head.log_weights", "unimodal.static.weight", "unimodal.static.bias"}
    assert (float(values["head.log_weights"][0]), float(values["unimodal.static.bias"][0])) == (1.0, 2.0)


def test_only_the_latest_runs_are_kept(tmp_path: Path) -> None:
    for age, run_id in enumerate(("new", "middle", "old")):
        RunState.of(tmp_path, run_id).save_embeddings("train", "key", _encoded(1.0))
        os.utime(tmp_path / "runs" / run_id, (1_000_000 - age, 1_000_000 - age))

    forget_old_runs(tmp_path, keep=2)

    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"new", "middle"}


def test_forgetting_is_harmless_where_there_was_no_run(tmp_path: Path) -> None:
    forget_old_runs(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_new_run_makes_room_by_forgetting_the_oldest(tmp_path: Path) -> None:
    for index in range(23):
        RunState.of(tmp_path, f"run-{index}").save_weights("0" * 64, {"w": torch.zeros(1)})
        os.utime(tmp_path / "runs" / f"run-{index}", (index, index))

    kept = {path.name for path in (tmp_path / "runs").iterdir()}

    assert len(kept) == 20
    assert "run-22" in kept
    assert not {"run-0", "run-1", "run-2"} & kept
