"""Viewers are told what changed and nothing else, and none is left behind who has gone."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message, Scope

from server.dashboard.access import Sessions
from server.dashboard.app import Dashboard
from server.dashboard.guard import COOKIE, Access, name_hosts
from server.dashboard.reading import RunReader
from server.dashboard.watching import Watcher
from tests.server.report.run_folders import change
from tests.waiting import PATIENCE_S

EVERY_S = 0.01
TOKEN = "a-token-that-is-long-enough"  # noqa: S105 - of a test


class Page:
    """A page whose parts a test sets, and how often it was looked at."""

    def __init__(self, **parts: str) -> None:
        self.parts, self.n_looks = parts, 0

    def read(self, _: str) -> dict[str, str]:
        self.n_looks += 1
        return dict(self.parts)

    async def looked_at(self, times: int = 2) -> None:
        """Until it was looked at so often again."""
        wanted = self.n_looks + times
        await until(lambda: self.n_looks >= wanted)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def next_event(stream: AsyncIterator[bytes]) -> tuple[str, dict[str, str]]:
    """Id and content of the next event that says something."""
    async with asyncio.timeout(PATIENCE_S):
        async for text in stream:
            if text.startswith(b"id: "):
                head, _, data = text.decode().partition("\ndata: ")
                return head.removeprefix("id: "), json.loads(data)
    raise AssertionError("the stream has ended")


async def rest_of(stream: AsyncIterator[bytes]) -> list[bytes]:
    async with asyncio.timeout(PATIENCE_S):
        return [text async for text in stream]


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_first_event_says_all_and_later_ones_what_changed() -> None:
    async def test() -> None:
        page = Page(first="a", second="b")
        stream = Watcher(page.read, every_s=EVERY_S).listen("")
        assert (await next_event(stream))[1] == {"first": "a", "second": "b"}
        page.parts["second"] = "c"
        assert (await next_event(stream))[1] == {"second": "c"}
        del page.parts["first"]
        assert (await next_event(stream))[1] == {"first": ""}
        page.parts["first"] = "back"
        assert (await next_event(stream))[1] == {"first": "back"}
        await stream.aclose()

    run(test)


def test_nothing_is_sent_while_nothing_changes_but_signs_of_life() -> None:
    async def test() -> None:
        page = Page(first="a")
        stream = Watcher(page.read, every_s=EVERY_S, beat_s=0.05).listen("")
        await next_event(stream)
        looks = page.n_looks
        assert [await anext(stream) for _ in range(3)] == [b": still here\n\n"] * 3
        assert page.n_looks > looks
        await stream.aclose()

    run(test)


def test_many_viewers_cost_one_look() -> None:
    async def test() -> None:
        page = Page(first="a")
        watcher = Watcher(page.read, every_s=0.2)
        streams = [watcher.listen("") for _ in range(50)]
        assert [(await next_event(stream))[1] for stream in streams] == [{"first": "a"}] * 50
        assert page.n_looks <= 2
        for stream in streams:
            await stream.aclose()

    run(test)


def test_viewer_who_comes_back_gets_what_it_missed() -> None:
    async def test() -> None:
        page = Page(first="a", second="b")
        watcher = Watcher(page.read, every_s=EVERY_S)
        stays, leaves = watcher.listen(""), watcher.listen("")
        await next_event(stays)
        seen, _ = await next_event(leaves)
        await leaves.aclose()
        page.parts["second"] = "c"
        await next_event(stays)
        comes_back = watcher.listen("", seen=seen)
        assert (await next_event(comes_back))[1] == {"second": "c"}
        for stream in (stays, comes_back):
            await stream.aclose()

    run(test)


def test_viewer_who_comes_back_to_a_page_that_nobody_watched_gets_all_of_it() -> None:
    async def test() -> None:
        page = Page(first="a", second="b")
        watcher = Watcher(page.read, every_s=EVERY_S)
        leaves = watcher.listen("")
        seen, _ = await next_event(leaves)
        await leaves.aclose()
        page.parts["first"] = "changed while nobody looked"
        another = watcher.listen("")
        await next_event(another)
        page.parts["second"] = "c"
        await next_event(another)  # as many versions as were seen before, and one more
        comes_back = watcher.listen("", seen=seen)
        assert (await next_event(comes_back))[1] == page.parts
        for stream in (another, comes_back):
            await stream.aclose()

    run(test)


@pytest.mark.parametrize("seen", ["", "0", "another.3", ".", "another.x", "1.1.1"])
def test_event_id_of_another_start_means_nothing(seen: str) -> None:
    async def test() -> None:
        stream = Watcher(Page(first="a").read, every_s=EVERY_S).listen("", seen=seen)
        assert (await next_event(stream))[1] == {"first": "a"}
        await stream.aclose()

    run(test)


def test_nobody_is_looked_for_after_the_last_viewer_has_left() -> None:
    async def test() -> None:
        page = Page(first="a")
        watcher = Watcher(page.read, every_s=EVERY_S)
        first, second = watcher.listen(""), watcher.listen("other")
        await next_event(first)
        await next_event(second)
        assert (watcher.n_listeners, watcher.is_looking) == (2, True)
        await first.aclose()
        assert watcher.n_listeners == 1
        await second.aclose()
        await until(lambda: not watcher.is_looking)
        looks = page.n_looks
        await asyncio.sleep(5 * EVERY_S)
        assert (page.n_looks, watcher.n_listeners) == (looks, 0)

    run(test)


def test_stream_ends_when_its_session_does() -> None:
    async def test() -> None:
        watcher = Watcher(Page(first="a").read, every_s=EVERY_S)
        start = time.monotonic()
        stream = watcher.listen("", until=start + 0.2)
        await next_event(stream)
        await rest_of(stream)
        assert time.monotonic() >= start + 0.2
        assert watcher.n_listeners == 0

    run(test)


def test_stream_of_a_session_that_is_over_says_nothing() -> None:
    async def test() -> None:
        stream = Watcher(Page(first="a").read, every_s=EVERY_S).listen("", until=time.monotonic() - 1)
        assert await rest_of(stream) == [b"retry: 2000\n\n"]

    run(test)


def test_all_streams_end_when_the_server_does() -> None:
    async def test() -> None:
        watcher = Watcher(Page(first="a").read, every_s=EVERY_S)
        streams = [watcher.listen(topic) for topic in ("", "one", "one")]
        for stream in streams:
            await next_event(stream)
        ends = [asyncio.create_task(rest_of(stream)) for stream in streams]
        await asyncio.sleep(0.05)
        watcher.close()
        await asyncio.gather(*ends)
        assert watcher.n_listeners == 0
        await until(lambda: not watcher.is_looking)

    run(test)


def test_look_that_fails_is_logged_and_the_next_one_tells(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        page = Page(first="a")
        broken = True

        def read(topic: str) -> dict[str, str]:
            parts = page.read(topic)
            if broken:
                raise RuntimeError("no such luck")
            return parts

        stream = Watcher(read, every_s=EVERY_S).listen("")
        told = asyncio.create_task(next_event(stream))
        await page.looked_at()
        assert not told.done()
        broken = False
        assert (await told)[1] == {"first": "a"}
        await stream.aclose()

    with caplog.at_level(logging.ERROR):
        run(test)
    assert "reading what is being viewed failed" in caplog.text


class Viewer:
    """A browser at the events of a dashboard: it gets what is sent, and leaves when it is told to."""

    def __init__(self, path: str, *, cookie: str = "") -> None:
        self.path, self.cookie, self.sent, self.gone = path, cookie, bytearray(), asyncio.Event()

    @property
    def scope(self) -> Scope:
        headers = [(b"host", b"127.0.0.1:8780"), *([(b"cookie", self.cookie.encode())] if self.cookie else [])]
        fixed = {"type": "http", "method": "GET", "scheme": "http", "http_version": "1.1", "query_string": b""}
        path = {"path": self.path, "raw_path": self.path.encode(), "root_path": ""}
        return {**fixed, **path, "headers": headers, "client": ("127.0.0.1", 1), "asgi": {"spec_version": "2.3"}}

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent += message.get("body", b"")


def dashboard_of(runs: Path, sessions: Sessions | None = None) -> Dashboard:
    access = Access(name_hosts(["127.0.0.1"], 8780, is_tls=False), sessions=sessions)
    return Dashboard(RunReader(runs.resolve(), locked=frozenset), access=access)


@pytest.mark.parametrize("path", ["/events/", "/events/plain"])
def test_dashboard_lets_go_of_a_viewer_who_leaves(runs: Path, path: str) -> None:
    async def test() -> None:
        dashboard, viewer = dashboard_of(runs), Viewer(path)
        answering = asyncio.create_task(dashboard.app(viewer.scope, viewer.receive, viewer.send))
        await until(lambda: b"data: " in viewer.sent)
        assert dashboard.watcher.n_listeners == 1
        viewer.gone.set()
        async with asyncio.timeout(PATIENCE_S):
            await answering
        await until(lambda: dashboard.watcher.n_listeners == 0)

    run(test)


def test_dashboard_ends_the_events_of_a_session_with_it(runs: Path) -> None:
    async def test() -> None:
        sessions = Sessions(TOKEN, lasts_s=2.0)
        dashboard = dashboard_of(runs, sessions)  # the first of a process takes a while, before the session begins
        viewer = Viewer("/events/plain", cookie=f"{COOKIE}={sessions.open(TOKEN)}")
        async with asyncio.timeout(PATIENCE_S):
            await dashboard.app(viewer.scope, viewer.receive, viewer.send)
        assert b"data: " in viewer.sent

    run(test)


def test_events_of_a_run_tell_that_its_state_has_changed(runs: Path) -> None:
    async def test() -> None:
        dashboard, viewer = dashboard_of(runs), Viewer("/events/plain")
        answering = asyncio.create_task(dashboard.app(viewer.scope, viewer.receive, viewer.send))
        await until(lambda: viewer.sent.count(b"data: ") == 1)
        change(runs / "plain", "status.json", state="failed", reason="a reason to fail")
        await until(lambda: viewer.sent.count(b"data: ") == 2)
        last = json.loads(viewer.sent.decode().rpartition("data: ")[2])
        assert "a reason to fail" in last["first"]
        assert not any(name.startswith("figure:") for name in last)
        viewer.gone.set()
        await answering

    run(test)
