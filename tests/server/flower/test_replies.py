"""How soon replies are pulled, and how often the SuperLink is asked for them. What they say: test_flower_link.py."""

import itertools
import time
from collections.abc import Iterable
from unittest.mock import Mock

import pytest
from flwr.app import Message

from server.flower.replies import LATE_SHARE, LONGEST_PAUSE_S, THREADS, Replies
from tests.server.fake_grid import FakeGrid, make_reply


def _take_all(replies: Replies, n: int, *, timeout_s: float = 10.0) -> float:
    """Takes n replies; returns the seconds until the last one."""
    started = time.monotonic()
    for _ in range(n):
        assert replies.next(timeout_s=timeout_s) is not None
    replies.close()
    return time.monotonic() - started


def test_replies_that_are_there_are_pulled_without_a_pause_between_them() -> None:
    replies = Replies(FakeGrid(replies=[make_reply(f"m{i}") for i in range(100)]))
    replies.await_also(f"m{i}" for i in range(100))

    assert _take_all(replies, 100) < 1.0


def test_reply_of_one_among_many_silent_ones_is_soon_found() -> None:
    replies = Replies(FakeGrid(replies=[make_reply("m99", after_s=1.0)]))
    replies.await_also(f"m{i}" for i in range(100))

    assert _take_all(replies, 1) < 3.5


def test_short_round_waits_little_for_its_replies() -> None:
    replies = Replies(FakeGrid(replies=[make_reply(f"m{i}", after_s=0.1) for i in range(5)]))
    replies.await_also(f"m{i}" for i in range(5))

    assert _take_all(replies, 5) < 0.3


@pytest.mark.parametrize(("n_due", "waited_s", "pause_s"), [(1, 0.0, 0.02), (1, 60.0, 0.2), (100, 60.0, 0.12)])
def test_pauses_grow_with_the_time_waited_and_are_shared_by_all_that_are_due(
    n_due: int, waited_s: float, pause_s: float
) -> None:
    replies = Replies(FakeGrid())
    replies.close()
    for i in range(n_due - 1):  # one is in the hand of the thread that pauses
        replies._due.put(f"m{i}")
    replies._heard -= waited_s

    assert replies._pause_s() == pytest.approx(pause_s, rel=0.01)
    assert pause_s * n_due / THREADS <= max(LATE_SHARE * waited_s, LONGEST_PAUSE_S) + 1e-9


def test_superlink_is_asked_ever_less_often_while_nobody_answers() -> None:
    grid = FakeGrid()
    asked: list[float] = []

    def note(_: Iterable[str]) -> Iterable[Message]:
        asked.append(time.monotonic())
        return []

    grid.pull_messages = Mock(side_effect=note)  # type: ignore[method-assign]
    replies = Replies(grid)
    replies.await_also(["m0", "m1"])
    assert replies.next(timeout_s=3.0) is None
    replies.close()

    early = sum(moment - asked[0] < 0.5 for moment in asked)
    late = sum(asked[-1] - moment < 0.5 for moment in asked)
    assert late < early / 2
    assert all(later >= sooner for sooner, later in itertools.pairwise(asked))


def test_no_more_replies_are_pulled_than_threads_while_one_is_in_hand() -> None:
    grid = FakeGrid(replies=[make_reply(f"m{i}") for i in range(9)])
    replies = Replies(grid)
    replies.await_also(f"m{i}" for i in range(9))
    assert replies.next(timeout_s=5.0) is not None
    time.sleep(0.5)

    assert len(grid.replies) == 9 - 1 - THREADS
    replies.close()
