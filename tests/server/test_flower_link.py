from __future__ import annotations

import time

import pytest
from flwr.supercore.task_identity import TaskIdentity

from server.flower_link import FlowerLink, describe_failure
from server.link import Answer
from shared_model.messages import TRAIN, HandshakeReply
from tests.server.fake_grid import FakeGrid, make_reply

QUESTION = HandshakeReply(site="x", version="1", modalities=[]).to_record()


@pytest.fixture(autouse=True)
def _inside_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower builds messages only inside an app."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def _ask(grid: FakeGrid, *, deadline_s: float = 5.0) -> list[Answer]:
    link = FlowerLink(grid)
    return list(link.ask(TRAIN, {3: QUESTION, 7: QUESTION, 9: QUESTION}, deadline_s=deadline_s))


def test_link_lists_the_connected_nodes() -> None:
    assert FlowerLink(FakeGrid(nodes=[7, 3])).nodes() == {3, 7}


def test_link_hands_over_each_answer_as_it_comes() -> None:
    grid = FakeGrid(batches=[[make_reply("m2")], [], [make_reply("m0"), make_reply("m1")]])

    answers = _ask(grid)

    assert [answer.node for answer in answers] == [9, 3, 7]
    assert all(answer.record is not None and not answer.failure for answer in answers)
    assert [message.metadata.dst_node_id for message in grid.sent] == [3, 7, 9]
    assert {message.metadata.message_type for message in grid.sent} == {TRAIN}


def test_link_tells_an_error_by_its_code_and_not_by_its_text() -> None:
    # Flower answers for a killed SuperNode itself, as node 1: only the message id tells who was asked
    answers = _ask(FakeGrid(batches=[[make_reply("m1", src_node_id=1, error=5), make_reply("m0"), make_reply("m2")]]))

    assert answers[0].node == 7
    assert answers[0].failure.endswith("(Flower error 5)")
    assert "patient-007" not in repr(answers)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            0,
            "a worker process died, often for lack of memory; if the run ends, continue with --resume (Flower error 0)",
        ),
        (2, "hipfed failed there; see Flower's log there (flower.log) (Flower error 2)"),
        (
            8,
            "a worker process died, often for lack of memory; if the run ends, continue with --resume (Flower error 8)",
        ),
        (99, "Flower error 99"),
    ],
)
def test_failure_is_told_in_words_with_what_to_do(code: int, words: str) -> None:
    assert describe_failure(code) == words


def test_link_names_who_is_silent_at_the_deadline_and_does_not_wait_longer() -> None:
    started = time.monotonic()

    answers = _ask(FakeGrid(batches=[[make_reply("m1")]]), deadline_s=0.3)

    assert time.monotonic() - started < 2
    assert [answer.node for answer in answers] == [7, 3, 9]
    assert [answer.failure for answer in answers] == ["", "no answer within 0.3 s", "no answer within 0.3 s"]


def test_link_names_a_node_to_which_no_message_could_be_sent() -> None:
    answers = _ask(FakeGrid(batches=[[make_reply("m0"), make_reply("m2")]], unsent=[7]))

    assert sorted((answer.node, answer.failure) for answer in answers) == [
        (3, ""),
        (7, "the message could not be sent"),
        (9, ""),
    ]
