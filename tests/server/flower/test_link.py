import threading
import time
from unittest.mock import DEFAULT, Mock

import httpx
import pytest
from flwr.supercore.task_identity import TaskIdentity

import server.flower.link
from server.flower.link import FlowerLink, describe_failure
from server.protocol.link import Answer
from shared_model.protocol.messages import TRAIN, HandshakeReply
from tests.server.fake_grid import FakeGrid, make_reply
from tests.waiting import PATIENCE_S

NODES = (3, 7, 9)
QUESTION = HandshakeReply(site="x", version="1", modalities=[]).to_record()


@pytest.fixture(autouse=True)
def _inside_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower builds messages only inside an app."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr(server.flower.link, "LOOK_S", 0.1)


def _ask(grid: FakeGrid, *, deadline_s: float = 20.0) -> list[Answer]:
    link = FlowerLink(grid)
    return list(link.ask(TRAIN, dict.fromkeys(NODES, QUESTION), deadline_s=deadline_s))


def test_link_lists_the_connected_nodes() -> None:
    assert FlowerLink(FakeGrid(nodes=[7, 3])).nodes() == {3, 7}


def test_link_hands_over_each_answer_as_it_comes() -> None:
    grid = FakeGrid(replies=[make_reply("m2"), make_reply("m0", after_s=0.6), make_reply("m1", after_s=1.2)])

    answers = _ask(grid)

    assert [answer.node for answer in answers] == [9, 3, 7]
    assert all(answer.record is not None and not answer.failure for answer in answers)
    assert [message.metadata.dst_node_id for message in grid.sent] == [3, 7, 9]
    assert {message.metadata.message_type for message in grid.sent} == {TRAIN}


def test_link_tells_an_error_by_its_code_and_not_by_its_text() -> None:
    # Flower answers for a SuperNode itself, as node 1: only the message id tells who was asked
    answers = _ask(FakeGrid(replies=[make_reply("m1", src_node_id=1, error=2), make_reply("m0"), make_reply("m2")]))

    (failed,) = (answer for answer in answers if answer.record is None)
    assert failed.node == 7
    assert failed.failure.endswith("(Flower error 2)")
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
    answers = _ask(FakeGrid(replies=[make_reply("m1")]), deadline_s=0.7)

    assert [answer.node for answer in answers] == [7, 3, 9]
    assert [answer.failure for answer in answers] == ["", "no answer within 0.7 s", "no answer within 0.7 s"]


def test_link_waits_no_longer_than_the_deadline_for_a_stalled_upload_and_keeps_the_others() -> None:
    started = time.monotonic()

    answers = _ask(
        FakeGrid(
            replies=[
                make_reply("m0", upload_s=PATIENCE_S),
                make_reply("m1", after_s=0.5),
                make_reply("m2", after_s=0.8),
            ]
        ),
        deadline_s=2.0,
    )

    assert time.monotonic() - started < PATIENCE_S
    assert {answer.node: answer.failure for answer in answers} == {7: "", 9: "", 3: "no answer within 2 s"}


def test_link_hears_the_last_hospital_though_all_others_uploads_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.flower.replies.STALL_S", 0.5)
    grid = FakeGrid(replies=[make_reply("m0", upload_s=9), make_reply("m1", upload_s=9), make_reply("m2", after_s=1.0)])

    answers = _ask(grid, deadline_s=6.0)

    assert {answer.node for answer in answers if not answer.failure} == {9}


def test_link_names_a_node_to_which_no_message_could_be_sent() -> None:
    answers = _ask(FakeGrid(replies=[make_reply("m0"), make_reply("m2")], unsent=[7]))

    assert sorted((answer.node, answer.failure) for answer in answers) == [
        (3, ""),
        (7, "the message could not be sent"),
        (9, ""),
    ]


def test_link_raises_what_flower_raises_while_it_pulls() -> None:
    grid = FakeGrid()
    grid.pull_messages = Mock(side_effect=ConnectionError("the run was stopped"))  # type: ignore[method-assign]

    with pytest.raises(ConnectionError, match="the run was stopped"):
        _ask(grid)


def test_link_pulls_again_when_the_superlinks_database_was_busy() -> None:
    grid = FakeGrid(replies=[make_reply("m0"), make_reply("m1"), make_reply("m2")])
    request = httpx.Request("POST", "https://127.0.0.1/v1/runtime/pull-messages")
    busy = httpx.HTTPStatusError("500", request=request, response=httpx.Response(500))
    pull = grid.pull_messages
    grid.pull_messages = Mock(side_effect=[busy, busy, *([DEFAULT] * 20)], wraps=pull)  # type: ignore[method-assign]

    answers = _ask(grid)

    assert sorted((answer.node, answer.failure) for answer in answers) == [(3, ""), (7, ""), (9, "")]


@pytest.mark.parametrize("error", [3, 8])
def test_link_puts_a_lost_question_again_at_once(error: int) -> None:
    grid = FakeGrid(nodes=NODES, replies=[make_reply("m1", error=error), *map(make_reply, ("m0", "m2", "m3"))])

    answers = _ask(grid)

    assert sorted((answer.node, answer.failure) for answer in answers) == [(3, ""), (7, ""), (9, "")]
    assert [message.metadata.dst_node_id for message in grid.sent] == [3, 7, 9, 7]
    assert grid.sent[3].metadata.ttl < 20.0


def test_link_puts_no_question_again_that_was_lost_three_times() -> None:
    lost = [make_reply(name, error=8) for name in ("m1", "m3", "m4")]
    grid = FakeGrid(nodes=NODES, replies=[*lost, make_reply("m0"), make_reply("m2")])

    answers = _ask(grid)

    (failed,) = (answer for answer in answers if answer.record is None)
    assert failed.node == 7
    assert failed.failure.endswith("(Flower error 8)")
    assert len(grid.sent) == 5


def test_link_puts_the_question_again_to_a_node_that_comes_back() -> None:
    grid = FakeGrid(nodes=[3, 9], replies=[make_reply("m1", error=5), *map(make_reply, ("m0", "m2", "m3"))])
    threading.Timer(1.0, grid.nodes.append, [7]).start()

    answers = _ask(grid)

    assert [answer.node for answer in answers][-1] == 7
    assert all(not answer.failure for answer in answers)


@pytest.mark.parametrize("error", [3, 5])  # 3 where the node was revoked
def test_link_waits_once_for_a_node_that_stays_away_and_not_again_at_each_question(error: int) -> None:
    gone = [make_reply(name, error=error) for name in ("m1", "m4")]
    grid = FakeGrid(nodes=[3, 9], replies=[*gone, *map(make_reply, ("m0", "m2", "m3", "m5"))])
    link = FlowerLink(grid, return_s=1.0)
    seconds = []
    for _ in range(2):
        started = time.monotonic()
        answers = list(link.ask(TRAIN, dict.fromkeys(NODES, QUESTION), deadline_s=PATIENCE_S))
        seconds.append(time.monotonic() - started)
        assert next(answer.failure for answer in answers if answer.node == 7).endswith(f"(Flower error {error})")

    assert 1.0 < seconds[0] < PATIENCE_S
    assert seconds[1] < seconds[0]


def test_link_names_a_node_that_is_still_away_at_the_deadline() -> None:
    grid = FakeGrid(nodes=[3, 9], replies=[make_reply("m1", error=5), make_reply("m0"), make_reply("m2")])

    answers = _ask(grid, deadline_s=1.0)

    assert answers[-1].failure.endswith("(Flower error 5)")


def test_link_puts_the_question_again_to_a_node_that_started_anew_though_nobody_saw_it_away() -> None:
    # Flower says that a node was away only if it is asked about the question at that time
    grid = FakeGrid(nodes=NODES, replies=[make_reply("m0"), make_reply("m2"), make_reply("m3")])
    threading.Timer(0.5, grid.since.update, [{7: "2026-01-01T00:00:00+00:00"}]).start()

    answers = _ask(grid)

    assert sorted((answer.node, answer.failure) for answer in answers) == [(3, ""), (7, ""), (9, "")]
    assert [message.metadata.dst_node_id for message in grid.sent] == [3, 7, 9, 7]


@pytest.mark.parametrize("error", [3, 5, 8])
def test_link_hears_of_a_second_loss_though_the_first_message_is_never_answered(error: int) -> None:
    grid = FakeGrid(nodes=NODES, replies=[make_reply("m3", error=error), *map(make_reply, ("m0", "m2", "m4"))])
    threading.Timer(0.3, grid.since.update, [{7: "2026-01-01T00:00:00+00:00"}]).start()

    answers = _ask(grid)

    assert sorted((answer.node, answer.failure) for answer in answers) == [(3, ""), (7, ""), (9, "")]
    assert len(grid.sent) == 5


def test_link_names_the_failure_of_the_second_message_though_the_first_is_never_answered() -> None:
    grid = FakeGrid(nodes=NODES, replies=[make_reply("m3", error=2), *map(make_reply, ("m0", "m2"))])
    threading.Timer(0.3, grid.since.update, [{7: "2026-01-01T00:00:00+00:00"}]).start()
    started = time.monotonic()

    answers = _ask(grid, deadline_s=PATIENCE_S)

    assert answers[-1].failure.endswith("(Flower error 2)")
    assert time.monotonic() - started < PATIENCE_S


def test_link_puts_a_question_no_more_than_three_times_again_to_a_node_that_comes_and_goes() -> None:
    grid = FakeGrid(nodes=NODES, replies=[make_reply("m0"), make_reply("m2")])
    for i in range(8):
        threading.Timer(0.3 * (i + 1), grid.since.update, [{7: f"2026-01-01T00:00:0{i}+00:00"}]).start()

    answers = _ask(grid, deadline_s=3.5)

    assert [(answer.node, answer.failure) for answer in answers][2:] == [(7, "no answer within 3.5 s")]
    assert [message.metadata.dst_node_id for message in grid.sent] == [3, 7, 9, 7, 7, 7]


@pytest.mark.parametrize("second", [None, 5, 8])
def test_link_takes_one_answer_of_a_node_that_was_only_cut_off(second: int | None) -> None:
    late = [make_reply("m1", after_s=1.0), make_reply("m3", after_s=0.8 if second else 1.2, error=second)]
    grid = FakeGrid(nodes=NODES, replies=[*late, make_reply("m0"), make_reply("m2", after_s=1.6)])
    threading.Timer(0.3, grid.since.update, [{7: "2026-01-01T00:00:00+00:00"}]).start()

    answers = _ask(grid)

    assert [(answer.node, answer.failure) for answer in answers] == [(3, ""), (7, ""), (9, "")]


def test_link_names_a_node_once_that_answers_neither_question() -> None:
    grid = FakeGrid(nodes=NODES, replies=[make_reply("m0"), make_reply("m2")])
    threading.Timer(0.3, grid.since.update, [{7: "2026-01-01T00:00:00+00:00"}]).start()

    answers = _ask(grid, deadline_s=1.0)

    assert [(answer.node, answer.failure) for answer in answers][2:] == [(7, "no answer within 1 s")]
    assert len(grid.sent) == 4


def test_link_waits_again_for_a_node_that_was_back_in_between() -> None:
    gone = [make_reply("m1", error=5), make_reply("m5", error=5)]
    grid = FakeGrid(nodes=[3, 9], replies=[*gone, *map(make_reply, ("m0", "m2", "m4", "m6", "m7"))])
    link = FlowerLink(grid, return_s=1.0)
    questions = dict.fromkeys(NODES, QUESTION)
    threading.Timer(0.3, grid.nodes.append, [7]).start()
    silent = list(link.ask(TRAIN, questions, deadline_s=1.2))[-1]  # to m3, put once it was back
    assert silent.failure == "no answer within 1.2 s"

    grid.nodes.remove(7)
    threading.Timer(0.5, grid.nodes.append, [7]).start()
    answers = list(link.ask(TRAIN, questions, deadline_s=5.0))

    assert [(answer.node, answer.failure) for answer in answers][-1] == (7, "")


def test_link_looks_again_when_the_superlinks_database_was_busy() -> None:
    grid = FakeGrid(nodes=NODES, replies=[make_reply("m1", error=3), *map(make_reply, ("m0", "m2", "m3"))])
    request = httpx.Request("POST", "https://127.0.0.1/v1/runtime/get-nodes")
    busy = httpx.HTTPStatusError("500", request=request, response=httpx.Response(500))
    grid.get_nodes = Mock(side_effect=[busy, busy, *([DEFAULT] * 50)], wraps=grid.get_nodes)  # type: ignore[method-assign]

    answers = _ask(grid)

    assert all(not answer.failure for answer in answers)
