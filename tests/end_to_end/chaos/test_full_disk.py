"""A disk without room, at a hospital and at the coordinator: told clearly, nothing lost, and mended by room."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.chaos.conftest import Ground
from tests.end_to_end.chaos.strikes import assert_completed, assert_same_results, read_lines, running

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk"),
]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of this size in the folder's place, while the block lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_hospital_without_room_is_told_and_takes_part_again_once_there_is_some(usual: Ground, tmp_path: Path) -> None:
    deployment, out = usual.deployment, tmp_path / "run"
    usual.use({"min-sites": "2"})
    cache = Path(deployment.hospital("east").read_settings().cache)
    with running(deployment, out) as run:
        run.wait_for("query.statistics", 1, hospital="east")
        with small_disk(cache, "64k"):
            run.wait_for("train", 2, hospital="east")
        done = run.finish()

    assert_completed(done, out)
    failed = [line["failed"] for line in read_lines(out)]
    assert "disk is full" in json.dumps(failed[0])
    assert failed[-1] == {}
    assert str(deployment.folder) not in json.dumps(failed)


def test_coordinator_without_room_says_so_everywhere_and_resumes_once_there_is_some(
    usual: Ground, tmp_path: Path
) -> None:
    deployment, out = usual.deployment, tmp_path / "run"
    with small_disk(out, "60m"):  # the fixed networks fit, and the model does not
        with running(deployment, out) as run:
            done = run.finish()
        status = json.loads((out / "status.json").read_text())

        assert done.returncode == 1, done.stdout
        assert status["state"] == "failed"
        assert "expected room on its disk" in status["reason"]
        assert "expected room on its disk" in " ".join(done.stdout.split())
        assert not list(out.glob("**/.*unfinished"))

        subprocess.run(["mount", "-o", "remount,size=400m", out], check=True)
        with running(deployment, out, resume=True) as run:
            assert_completed(run.finish(), out)
        assert_same_results(out, usual.expected)
