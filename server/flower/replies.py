"""Pulling replies from Flower's Grid, a few at a time.

Flower's `pull_messages` returns once every reply that has been announced is here whole. So each is pulled by itself, in
a thread: a hospital whose upload stalls keeps nobody else's answer, nor the coordinator beyond its deadline, and of
many large answers only as many are in memory as there are threads, and the one in hand. A thread whose pull has stalled
is replaced, since Flower waits for the rest of a reply for hours.
"""

import queue
import threading
import time
from collections.abc import Iterable

import httpx
from flwr.app import Message
from flwr.serverapp import Grid

THREADS = 2
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.2  # of a thread between two pulls while no reply comes
LATE_SHARE = 0.1  # a reply is pulled after at most this share of the time that was waited for it, within those bounds
STALL_S = 60.0


class Replies:
    """Replies to some messages, each as it comes.

    Args:
        grid: where they are pulled.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._due: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._come: queue.SimpleQueue[Message | Exception] = queue.SimpleQueue()
        self._room = threading.Semaphore(1)
        self._taken = False
        self._closed = threading.Event()
        self._begun: dict[str, float] = {}  # by message whose reply is being pulled, since when
        self._heard = time.monotonic()
        self._threads = 0
        self._add_threads()

    def await_also(self, message_ids: Iterable[str]) -> None:
        """Wait for the replies to these messages as well."""
        for message_id in message_ids:
            self._due.put(message_id)

    def next(self, *, timeout_s: float) -> Message | None:
        """The next reply, the one before being done with; None if none comes in this time.

        Raises:
            Exception: as Flower raised it, such as at the end of the run.
        """
        if self._taken:
            self._taken = False
            self._room.release()
        try:
            reply = self._come.get(timeout=max(timeout_s, 0.0))
        except queue.Empty:
            self._add_threads()
            return None
        self._taken = True
        if isinstance(reply, Exception):
            raise reply
        return reply

    def close(self) -> None:
        """Take no more replies."""
        self._closed.set()
        self._room.release(self._threads)

    def _add_threads(self) -> None:
        now = time.monotonic()
        stalled = sum(now - begun > STALL_S for begun in list(self._begun.values()))
        while self._threads < THREADS + stalled:
            # Daemons: one that waits for the rest of a stalled reply must not keep the process.
            threading.Thread(target=self._pull, daemon=True).start()
            self._threads += 1

    def _pause_s(self) -> float:
        """Until the next pull: less for many than for few, more the longer no reply came, to spare the SuperLink."""
        sweep_s = LATE_SHARE * (time.monotonic() - self._heard)
        return min(max(THREADS * sweep_s / (self._due.qsize() + 1), SHORTEST_PAUSE_S), LONGEST_PAUSE_S)

    def _pull(self) -> None:
        pause_s = SHORTEST_PAUSE_S
        while not self._closed.wait(pause_s):
            come = self._look()
            pause_s = 0.0 if come else self._pause_s()
            while come:  # nothing here keeps a reply longer than the one who takes it
                self._room.acquire()
                self._come.put(come.pop())

    def _look(self) -> list[Message | Exception]:
        """The reply that has been due longest, if it is there; else it is due last."""
        try:
            message_id = self._due.get_nowait()
        except queue.Empty:
            return []
        come: list[Message | Exception]
        self._begun[message_id] = time.monotonic()
        try:
            come = [*self._grid.pull_messages([message_id])]
        except httpx.HTTPStatusError as error:
            # The SuperLink gives up on its own database after 5 s, as on a busy disk. If a reply was lost with that,
            # Flower tells so later, by code 3.
            come = [] if error.response.is_server_error else [error]
        except Exception as error:  # noqa: BLE001 - raised where the replies are taken
            come = [error]
        del self._begun[message_id]
        if come:
            self._heard = time.monotonic()
        else:
            self._due.put(message_id)
        return come
