from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from server.checkpoints import FILE, Progress, has_progress, load_progress, save_progress
from shared_model.errors import StudyError


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
