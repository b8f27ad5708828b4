import math
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from server.run_folder.checkpoints import FILE, Progress, has_progress, load_progress, save_progress
from shared_model.errors import StudyError
from shared_model.process.files import remove_unfinished


def test_progress_survives_a_restart_to_the_last_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    progress = Progress(
        weights={"a.b/c": rng.normal(size=(2, 3)).astype(np.float32), "scalar": np.array(0.1, dtype=np.float32)},
        best_weights={"a.b/c": rng.normal(size=(2, 3)).astype(np.float32)},
        best_loss=0.1 + 0.2,
        strategy_state={"a.b/c/m": rng.normal(size=(2, 3))},
        phase_index=1,
        rounds_in_phase=2,
        rounds_since_best=3,
        round_number=4,
        best_round=5,
        rounds=[{"round": 1, "failed": {"ümlaut": "why"}, "val_auc": None}],
    )

    save_progress(tmp_path / "checkpoints", progress)
    loaded = load_progress(tmp_path / "checkpoints")

    for part in ("weights", "best_weights", "strategy_state"):
        before, after = getattr(progress, part), getattr(loaded, part)
        assert set(before) == set(after)
        for name in before:
            assert before[name].dtype == after[name].dtype
            np.testing.assert_array_equal(before[name], after[name])
    arrays = ("weights", "best_weights", "strategy_state")
    assert {key: value for key, value in vars(progress).items() if key not in arrays} == {
        key: value for key, value in vars(loaded).items() if key not in arrays
    }


def test_progress_keeps_an_infinite_best_loss(tmp_path: Path) -> None:
    save_progress(tmp_path, Progress(weights={}, best_weights={}))

    assert load_progress(tmp_path).best_loss == math.inf


def test_checkpoint_that_is_missing_is_told_as_such(tmp_path: Path) -> None:
    assert not has_progress(tmp_path)
    with pytest.raises(StudyError, match="expected a finished round"):
        load_progress(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"junk" * 100])
def test_checkpoint_that_is_damaged_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)

    with pytest.raises(StudyError, match="Start the run anew"):
        load_progress(tmp_path)


def test_checkpoint_cut_short_is_refused(tmp_path: Path) -> None:
    save_progress(tmp_path, Progress(weights={"w": np.ones(100, dtype=np.float32)}, best_weights={}))
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[:-1])

    with pytest.raises(StudyError, match="expected a finished round"):
        load_progress(tmp_path)


def _save_for_ever(folder: Path, *, first: int) -> None:
    for number in range(first, 10**9):
        weights = {"w": np.full(2_000_000, number, dtype=np.float32)}
        save_progress(folder, Progress(weights=weights, best_weights=weights, round_number=number))


def test_process_killed_while_it_writes_leaves_a_whole_checkpoint_each_time(tmp_path: Path) -> None:
    rng, last, within_a_write = random.Random(5), 0, 0
    for _ in range(20):
        pid = os.fork()
        if not pid:
            try:
                _save_for_ever(tmp_path, first=last + 1)
            finally:
                os._exit(1)
        while not has_progress(tmp_path):
            time.sleep(0.01)
        time.sleep(rng.uniform(0.05, 0.3))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        within_a_write += len(list(tmp_path.glob(".progress*")))

        loaded = load_progress(tmp_path)

        assert loaded.round_number >= last
        for weights in (loaded.weights, loaded.best_weights):
            np.testing.assert_array_equal(weights["w"], np.float32(loaded.round_number))
        last = loaded.round_number
        remove_unfinished(tmp_path)

    assert within_a_write > 0  # or the moments were badly chosen
    assert not list(tmp_path.glob(".progress*"))
