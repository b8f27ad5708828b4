"""The coordinator's processes are killed at every step; the run is resumed and ends with the same bytes."""

import random
import subprocess
from pathlib import Path

import pytest

from shared_model.process import supervision
from tests.end_to_end.chaos.conftest import HOSPITALS, Ground
from tests.end_to_end.chaos.strikes import (
    STEPS,
    Step,
    StudyRun,
    assert_completed,
    assert_no_round_lost,
    assert_same_results,
    coordinator_part,
    kill_tree_of,
    read_lines,
    running,
    strike,
)
from tests.waiting import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]
SOME_STEPS = (STEPS[3], STEPS[6], STEPS[9], STEPS[11])


def _wait_for(run: StudyRun, step: Step) -> None:
    """Until a step's question is at a hospital; a resumed run does not put those before its checkpoint again."""
    done = {"train": 0, "evaluate": 0}
    if run.resumed and (run.out / "rounds.jsonl").exists():
        for line in read_lines(run.out):
            done["evaluate" if line["train_loss"] is None else "train"] += 1
    run.wait_for(step.kind, step.nth - done.get(step.kind, 0), hospital="east")


def test_server_app_killed_at_every_step_gives_the_same_bytes_in_the_end(usual: Ground, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for index, step in enumerate(STEPS):
        with running(usual.deployment, out, resume=index > 0) as run:
            _wait_for(run, step)
            run.kill()
    with running(usual.deployment, out, resume=True) as run:
        done = run.finish()

    assert_completed(done, out)
    assert_same_results(out, usual.expected)
    assert_no_round_lost(out, HOSPITALS)


def test_killed_server_app_alone_ends_the_run_as_failed_and_it_can_be_resumed(usual: Ground, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with running(usual.deployment, out) as run:
        run.wait_for("train", 2, hospital="east")
        for process in usual.deployment.find("flwr-serverapp"):
            strike(process)
        done = run.finish()
    assert done.returncode == 1
    assert '"failed"' in (out / "status.json").read_text()

    with running(usual.deployment, out, resume=True) as run:
        assert_completed(run.finish(), out)
    assert_same_results(out, usual.expected)


@pytest.mark.parametrize("part", ["superlink", "coordinator"])
def test_coordinator_killed_at_some_steps_gives_the_same_bytes_in_the_end(
    usual: Ground, tmp_path: Path, part: str
) -> None:
    deployment, out = usual.deployment, tmp_path / "run"
    for index, step in enumerate(SOME_STEPS):
        with running(deployment, out, resume=index > 0) as run:
            _wait_for(run, step)
            if part == "superlink":
                strike(coordinator_part(deployment, "superlink"))
            else:
                kill_tree_of(deployment.coordinator.processes, parts=("superlink", "gateway"))
            done = run.finish()
            assert done.returncode == 1, done.stdout
            assert '"failed"' in (out / "status.json").read_text()
        if part == "coordinator":
            wait_until(lambda: supervision.read_status(deployment.coordinator.processes) is None)
            deployment.start_coordinator()
        else:
            wait_until(lambda: _is_ready(usual))
    with running(deployment, out, resume=True) as run:
        done = run.finish()

    assert_completed(done, out)
    assert_same_results(out, usual.expected)
    assert_no_round_lost(out, HOSPITALS)


def _is_ready(ground: Ground) -> bool:
    status = supervision.read_status(ground.deployment.coordinator.processes)
    return status is not None and status.ready


def test_gateway_killed_at_every_step_costs_no_round(usual: Ground, tmp_path: Path) -> None:
    deployment, out = usual.deployment, tmp_path / "run"
    with running(deployment, out) as run:
        for step in STEPS:
            run.wait_for(step.kind, step.nth, hospital="east")
            wait_until(lambda: _is_ready(usual))
            strike(coordinator_part(deployment, "gateway"))
        done = run.finish()

    assert_completed(done, out)
    assert_same_results(out, usual.expected)
    assert_no_round_lost(out, HOSPITALS)


@pytest.mark.parametrize("seed", [1, 2])
def test_server_app_killed_at_random_moments_gives_the_same_bytes_in_the_end(
    usual: Ground, tmp_path: Path, seed: int
) -> None:
    rng, out = random.Random(seed), tmp_path / "run"
    for index in range(6):
        with running(usual.deployment, out, resume=index > 0) as run:
            wait_until(lambda: bool(usual.deployment.find("flwr-serverapp")) or run.process.poll() is not None)
            try:
                run.process.wait(timeout=rng.uniform(1.0, 20.0))
            except subprocess.TimeoutExpired:
                run.kill()
    with running(usual.deployment, out, resume=True) as run:
        done = run.finish()

    assert_completed(done, out)
    assert_same_results(out, usual.expected)
