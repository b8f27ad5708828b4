"""What many ask for at the same moment is made once, and nothing is kept for longer."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.dashboard.sharing import Shared
from tests.waiting import PATIENCE_S


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Maker:
    """Makes 1, 2, 3."""

    n = 0

    def __call__(self) -> int:
        self.n += 1
        return self.n


def test_who_asks_while_it_is_made_gets_it_too() -> None:
    begun, go_on, maker = threading.Event(), threading.Event(), Maker()

    def make() -> int:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        return maker()

    shared = Shared()
    with ThreadPoolExecutor(5) as threads:
        first = threads.submit(shared.get, "page", make)
        assert begun.wait(PATIENCE_S)
        others = [threads.submit(shared.get, "page", make) for _ in range(4)]
        go_on.set()
        assert [one.result(PATIENCE_S) for one in (first, *others)] == [1] * 5


def test_it_is_made_anew_after_its_time() -> None:
    clock, maker = Clock(), Maker()
    shared = Shared(lasts_s=0.5, clock=clock)
    found = []
    for clock.now in (0.0, 0.4, 0.5, 0.9, 1.1):
        found.append(shared.get("page", maker))
    assert found == [1, 1, 2, 2, 3]


def test_each_key_has_its_own() -> None:
    shared = Shared(clock=Clock())
    assert (shared.get("a", lambda: 1), shared.get("b", lambda: 2), shared.get("a", lambda: 3)) == (1, 2, 1)


def test_nothing_is_kept_beyond_its_time() -> None:
    clock = Clock()
    shared = Shared(lasts_s=0.5, clock=clock)
    for clock.now in range(100):
        shared.get(clock.now, Maker())
    assert len(shared._made) == 1


def test_failure_is_not_kept() -> None:
    def fail() -> None:
        raise ValueError("not now")

    shared = Shared(clock=Clock())
    with pytest.raises(ValueError, match="not now"):
        shared.get("page", fail)
    assert shared.get("page", lambda: 1) == 1
