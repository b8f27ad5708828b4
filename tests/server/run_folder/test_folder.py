import hashlib
import json
import os
import stat
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from server.run_folder.folder import RunFolder, read_status
from server.run_folder.lock import LAUNCHER_LOCK
from shared_model.errors import StudyError
from shared_model.process.folder_lock import hold_lock


def test_status_says_state_and_reason(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")

    assert read_status(folder.path) == ("missing", "")
    folder.write_status("running")
    assert read_status(folder.path) == ("running", "")
    folder.write_status("failed", "too few hospitals\n  north: late")
    assert read_status(folder.path) == ("failed", "too few hospitals\n  north: late")


@pytest.mark.parametrize("text", ["", "{", '{"reason": "x"}'])
def test_status_that_cannot_be_read_is_missing(tmp_path: Path, text: str) -> None:
    (tmp_path / "status.json").write_text(text)

    assert read_status(tmp_path)[0] == "missing"


def test_rounds_are_one_json_line_each(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)

    folder.write_rounds([{"round": 1, "failed": {"a": "two\nlines"}}, {"round": 2, "failed": {}}])

    lines = (tmp_path / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"round": 1, "failed": {"a": "two\nlines"}},
        {"round": 2, "failed": {}},
    ]


def test_json_that_no_other_program_could_read_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("metrics.json", {"auc": 0.5})

    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.write_json("metrics.json", {"auc": float("nan")})

    assert json.loads((tmp_path / "metrics.json").read_text()) == {"auc": 0.5}


def test_weights_are_the_same_bytes_whatever_their_order_and_layout(tmp_path: Path) -> None:
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, dtype=np.float32)

    first = RunFolder(tmp_path / "one").write_weights({"a": a, "b": b})
    second = RunFolder(tmp_path / "two").write_weights({"b": b, "a": np.asfortranarray(a)})

    assert first == second == (tmp_path / "two" / "model.safetensors").read_bytes()
    assert hashlib.sha256(first).digest() != hashlib.sha256(RunFolder(tmp_path).write_weights({"a": a})).digest()


def test_scores_come_back_as_they_were_kept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(StudyError, match="expected a finished run"):
        folder.read_scores()

    folder.write_scores({"counts": np.array([[1.0, 2.0]]), "n": np.array(3.0)})

    scores = folder.read_scores()
    np.testing.assert_array_equal(scores["counts"], [[1.0, 2.0]])
    assert scores["n"] == 3.0


@pytest.mark.parametrize("locked_first", [False, True])
def test_folder_is_made_for_its_owner_alone(tmp_path: Path, *, locked_first: bool) -> None:
    path = tmp_path / "runs" / "first"
    before = os.umask(0)
    try:
        with hold_lock(path, LAUNCHER_LOCK) if locked_first else nullcontext():
            RunFolder(path).write_status("running")
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o700
