"""One look at each viewed run for all its viewers, of whom each is told only what changed.

A viewer holds nothing but the number of the version that it has seen: one that reads slowly skips versions, and one
that leaves frees all that it took.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field

EVERY_S = 1.0
BEAT_S = 15.0  # between two signs of life, so that a connection that broke is noticed
REST = 4.0  # times as long as a look took, nothing is looked at
_BEAT = b": still here\n\n"

Parts = Mapping[str, str]

log = logging.getLogger("hipfed.dashboard")


@dataclass
class _Board:
    """The parts of one page, each with the version in which it last changed; "" is a part that is gone."""

    epoch: str = field(default_factory=lambda: secrets.token_hex(4))  # versions of another board mean nothing
    parts: dict[str, tuple[int, str]] = field(default_factory=dict)
    version: int = 0
    n_listeners: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    told: dict[int, bytes] = field(default_factory=dict)

    def publish(self, parts: Parts) -> None:
        fresh = {name: text for name, text in parts.items() if self.parts.get(name, (0, None))[1] != text}
        fresh |= {name: "" for name, (_, text) in self.parts.items() if text and name not in parts}
        if not fresh:
            return
        self.version += 1
        self.parts |= {name: (self.version, text) for name, text in fresh.items()}
        self.told.clear()
        self.changed.set()
        self.changed = asyncio.Event()

    def changes(self, since: int) -> bytes:
        """An event with the parts that changed after a version; made once for all who ask the same."""
        if since not in self.told:
            content = {name: text for name, (version, text) in self.parts.items() if version > since}
            self.told[since] = b"id: %s.%d\ndata: %s\n\n" % (
                self.epoch.encode(),
                self.version,
                json.dumps(content).encode(),
            )
        return self.told[since]

    def version_of(self, event_id: str) -> int:
        """The version that an event told; 0 where it is none of this board's."""
        epoch, _, number = event_id.partition(".")
        known = epoch == self.epoch and number.isdecimal() and int(number) <= self.version
        return int(number) if known else 0


class Watcher:
    """Tells listeners how the parts of pages change.

    Args:
        read: the parts of a page by its topic; runs in a thread.
        every_s: between two looks, in seconds.
        beat_s: between two signs of life, in seconds.
    """

    def __init__(self, read: Callable[[str], Parts], *, every_s: float = EVERY_S, beat_s: float = BEAT_S) -> None:
        self._read, self._every_s, self._beat_s = read, every_s, beat_s
        self._boards: dict[str, _Board] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def n_listeners(self) -> int:
        """How many listen now."""
        return sum(board.n_listeners for board in self._boards.values())

    @property
    def is_looking(self) -> bool:
        """True if anything is being watched."""
        return self._task is not None and not self._task.done()

    async def listen(self, topic: str, *, seen: str = "", until: float | None = None) -> AsyncGenerator[bytes, None]:
        """Events of a topic, from those after the version that was seen; the first says all else.

        Args:
            topic: what to watch.
            seen: id of the last event that the viewer got; "" for none.
            until: end on the monotonic clock, in seconds; None for as long as the viewer stays.
        """
        board = self._boards.setdefault(topic, _Board())
        board.n_listeners += 1
        try:
            if not self.is_looking:
                self._task = asyncio.create_task(self._look_on())
            version = board.version_of(seen)
            yield b"retry: 2000\n\n"
            while not self._is_closed and (until is None or time.monotonic() < until):
                changed = board.changed
                if board.version > version:
                    content, version = board.changes(version), board.version
                    yield content
                elif not await self._wait(changed, until):
                    yield _BEAT
        finally:
            board.n_listeners -= 1
            if board.n_listeners == 0 and self._boards.get(topic) is board:
                del self._boards[topic]

    def close(self) -> None:
        """Let all listeners end."""
        self._is_closed = True
        for board in self._boards.values():
            board.changed.set()
        if self._task is not None:
            self._task.cancel()

    async def _wait(self, changed: asyncio.Event, until: float | None) -> bool:
        left = self._beat_s if until is None else min(self._beat_s, max(until - time.monotonic(), 0.0))
        try:
            await asyncio.wait_for(changed.wait(), left)
        except TimeoutError:
            return False
        return True

    async def _look_on(self) -> None:
        """One look at every topic that somebody listens to, then a rest; ends with the last listener."""
        while self._boards:
            start = time.monotonic()
            for topic, board in list(self._boards.items()):
                try:
                    board.publish(await asyncio.to_thread(self._read, topic))
                except Exception:
                    log.exception("reading what is being viewed failed")  # its viewers keep what they have
            await asyncio.sleep(max(self._every_s, REST * (time.monotonic() - start)))
