"""Processes of a hospital are killed or stopped at every step; its answers count all the same, or the others' do."""

import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from flwr.app import RecordDict

from server.protocol.link import Answer, Link
from shared_model.config import parse_settings
from shared_model.protocol.messages import TRAIN
from simulation.in_process import InProcessLink
from tests.end_to_end.chaos.conftest import HOSPITALS, SETTINGS, Ground
from tests.end_to_end.chaos.strikes import (
    STEPS,
    Step,
    assert_completed,
    assert_no_round_lost,
    assert_same_results,
    client_app_with_question,
    hospital_part,
    kill_tree_of,
    kill_worker_at_work,
    launcher,
    read_lines,
    running,
    stopped,
    strike,
    supervisor,
)
from tests.server.small_cohort import open_workers, run_small_study

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(2400)]
SLOW_STEPS = STEPS if os.environ.get("HIPFED_LONG") else (STEPS[0], STEPS[6], STEPS[11])


def test_worker_killed_at_every_step_costs_no_round(usual: Ground, tmp_path: Path) -> None:
    out, rng = tmp_path / "run", random.Random(3)
    with running(usual.deployment, out) as run:
        for step in STEPS:
            run.wait_for(step.kind, step.nth, hospital="east")
            kill_worker_at_work(usual.deployment, "east", rng)
        done = run.finish()

    assert_completed(done, out)
    assert_no_round_lost(out, HOSPITALS)
    assert_same_results(out, usual.expected)


def test_client_app_and_supernode_killed_at_a_step_cost_no_round(usual: Ground, tmp_path: Path) -> None:
    """Both at once, at two hospitals: Flower takes up to a minute to notice either."""
    deployment, out = usual.deployment, tmp_path / "run"
    with running(deployment, out) as run:
        put_again: Counter[str] = Counter()  # by kind
        for step in SLOW_STEPS:
            run.wait_for(step.kind, step.nth + put_again[step.kind], hospital="east")
            with client_app_with_question(deployment, "east", "north") as client_app:
                strike(hospital_part(deployment, "north", "supernode"))
                for process in client_app:
                    strike(process)
            put_again[step.kind] += 1
        done = run.finish()

    assert_completed(done, out)
    told = (out / "log.txt").read_text()
    assert told.count("(Flower error 8)") >= len(SLOW_STEPS)  # the ClientApp is gone
    # The SuperNode is gone, or was back before that was noticed and no longer has the question.
    ways = ("(Flower error 5)", "(Flower error 3)", "was away; the question is put again")
    assert sum(map(told.count, ways)) >= len(SLOW_STEPS)
    assert_no_round_lost(out, HOSPITALS)
    assert_same_results(out, usual.expected)


def test_launcher_of_client_apps_killed_costs_no_round(usual: Ground, tmp_path: Path) -> None:
    """The SuperNode ends with it, as it would take questions on that nobody answers."""
    out = tmp_path / "run"
    with running(usual.deployment, out) as run:
        run.wait_for("train", 2, hospital="east")
        strike(launcher(usual.deployment, "east"))
        done = run.finish()

    assert_completed(done, out)
    assert_no_round_lost(out, HOSPITALS)
    assert_same_results(out, usual.expected)


@pytest.mark.parametrize("step", SLOW_STEPS, ids=lambda step: step.name)
def test_hospital_killed_as_a_whole_and_started_again_costs_no_round(usual: Ground, tmp_path: Path, step: Step) -> None:
    deployment, out = usual.deployment, tmp_path / "run"
    with running(deployment, out) as run:
        run.wait_for(step.kind, step.nth, hospital="north")
        kill_tree_of(deployment.hospital("north").folder / "processes", parts=("worker", "supernode"))
        deployment.must("hipfed-client", "stop", "--home", deployment.hospital("north").folder)
        deployment.start_hospital("north")
        done = run.finish()

    assert_completed(done, out)
    assert_no_round_lost(out, HOSPITALS)
    assert_same_results(out, usual.expected)


@dataclass
class AbsentWhen:
    """A link on which one node's answers do not count in some rounds, its state at the hospital notwithstanding."""

    inner: Link
    node: int
    train_questions: frozenset[int]
    asked: int = 0

    def nodes(self) -> frozenset[int]:
        return self.inner.nodes()

    def ask(self, kind: str, questions: Mapping[int, RecordDict], *, deadline_s: float) -> Iterator[Answer]:
        if kind == TRAIN:
            self.asked += 1
        is_lost = kind == TRAIN and self.asked in self.train_questions
        for answer in self.inner.ask(kind, questions, deadline_s=deadline_s):
            yield Answer(answer.node, None, "late") if is_lost and answer.node == self.node else answer


@pytest.mark.parametrize("part", ["worker", "courier"])
def test_answer_after_the_deadline_changes_nothing_and_the_round_counts_the_others(
    usual: Ground, tmp_path: Path, part: str
) -> None:
    """A stopped worker: its courier says no in time. A stopped courier: the answer itself comes late."""
    deployment, out = usual.deployment, tmp_path / "run"
    settings = {"deadline-s": "45", "min-sites": "2"}
    usual.use(settings)
    with running(deployment, out) as run:
        run.wait_for("train", 2, hospital="north")
        name = "worker" if part == "worker" else "supernode"
        process = hospital_part(deployment, "north", name)
        with stopped(process, *process.children(recursive=True)):
            time.sleep(50)
        done = run.finish()

    assert_completed(done, out)
    late = [index for index, line in enumerate(read_lines(out), start=1) if line["answered"] != list(HOSPITALS)]
    assert late, read_lines(out)
    trained = [index for index, line in enumerate(read_lines(out), 1) if line["train_loss"] is not None]
    merged = {key: str(value) for key, value in {**SETTINGS, **settings}.items()}
    link = AbsentWhen(
        InProcessLink(open_workers(deployment.cohort, tmp_path / "cache")),
        node=1,
        train_questions=frozenset(trained.index(index) + 1 for index in late),
    )
    expected = run_small_study(deployment.cohort, tmp_path / "here", settings=parse_settings(merged), link=link)
    assert (out / "model.safetensors").read_bytes() == (expected.path / "model.safetensors").read_bytes()


def test_killed_hospital_leaves_nothing_that_its_supervisor_does_not_end(usual: Ground) -> None:
    deployment = usual.deployment
    folder = deployment.hospital("east").folder / "processes"
    marked = {process.pid for process in deployment.find(str(deployment.hospital("east").folder))}
    assert len(marked) >= 2
    strike(supervisor(folder))

    gone, left = psutil.wait_procs([psutil.Process(pid) for pid in marked if psutil.pid_exists(pid)], timeout=60)

    assert left == [], gone
    deployment.start_hospital("east")
