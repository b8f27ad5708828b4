from pathlib import Path

import pytest

from client.worker.answering import Worker
from shared_model.protocol.messages import HANDSHAKE, HandshakeReply, HandshakeRequest
from simulation.in_process import InProcessLink
from tests.server.small_cohort import describe_study, open_workers, small_settings, write_small_cohort


@pytest.fixture
def workers(tmp_path: Path) -> list[Worker]:
    return open_workers(write_small_cohort(tmp_path / "cohort"), tmp_path / "cache")


def test_in_process_link_asks_each_node_once_and_only_those_named(workers: list[Worker]) -> None:
    link = InProcessLink(workers)
    question = HandshakeRequest(study=describe_study(workers[0].site, small_settings())).to_record()

    answers = list(link.ask(HANDSHAKE, {2: question, 0: question}, deadline_s=1.0))

    assert link.nodes() == {0, 1, 2}
    assert [(answer.node, answer.failure) for answer in answers] == [(0, ""), (2, "")]
    sites = [HandshakeReply.from_record(answer.record).site for answer in answers if answer.record is not None]
    assert sites == ["east", "south"]


def test_in_process_link_asks_nobody_without_questions(workers: list[Worker]) -> None:
    assert list(InProcessLink(workers).ask(HANDSHAKE, {}, deadline_s=1.0)) == []
