"""Many viewers of a dashboard at once, and what they wait for.

They speak HTTP/1.0, a connection a request: an answer ends with its connection, and little is spent on the viewers'
side, which shares the machine with what it measures.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import quote

from server.run_folder.folder import RunFolder
from simulation.bench.many_runs import Line, next_round

ANSWER_S = 30.0  # a page that takes longer is an error
STAY_S = 15.0  # between two visits of a viewer
ROUND_S = 1.0
_LONGEST_EVENT = 2**24  # bytes
_MOST_TOLD = 5  # errors whose text is kept


@dataclass(frozen=True)
class Address:
    """Where the dashboard listens."""

    host: str
    port: int


@dataclass
class Waits:
    """What viewers waited for.

    Attributes:
        seconds: by kind, of what went well.
        n_errors: by kind.
        told: the first errors.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    n_errors: dict[str, int] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def note(self, kind: str, seconds: float) -> None:
        """Something went well after so long."""
        self.seconds.setdefault(kind, []).append(seconds)

    def note_error(self, kind: str, error: object) -> None:
        """Something went wrong."""
        self.n_errors[kind] = self.n_errors.get(kind, 0) + 1
        if len(self.told) < _MOST_TOLD:
            self.told.append(f"{kind}: {error!r}")


async def fetch(address: Address, path: str) -> bytes:
    """The content of a page.

    Raises:
        OSError: no answer in time, another status than 200, or less than was announced.
        EOFError: not even a whole head.
    """
    async with asyncio.timeout(ANSWER_S), _ask(address, path) as (reader, length):
        body = await reader.read()
    if len(body) != length:
        raise OSError(f"{path}: expected {length} bytes, got {len(body)}")
    return body


@asynccontextmanager
async def _ask(address: Address, path: str) -> AsyncIterator[tuple[asyncio.StreamReader, int | None]]:
    """What follows the head of an answer, and how long it is to be where the head says so."""
    reader, writer = await asyncio.open_connection(address.host, address.port, limit=_LONGEST_EVENT)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: {address.host}:{address.port}\r\n\r\n".encode())
        status, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        if status.split()[1] != "200":
            raise OSError(f"{path}: expected status 200, got {status}")
        length = dict(line.split(": ", 1) for line in fields if line).get("content-length")
        yield reader, None if length is None else int(length)
    finally:
        writer.close()


class Crowd:
    """Viewers, each of which opens the list, then a run's page, and stays for its events.

    Args:
        address: of the dashboard.
        names: of runs that are opened; viewers of these stay for the events of the list.
        live: name of the run that goes on, which every other viewer opens and stays for.
    """

    def __init__(self, address: Address, *, names: Sequence[str], live: str) -> None:
        self._address, self._names, self._live = address, names, live
        self._written: dict[int, float] = {}
        self.waits = Waits()

    async def look_on(self, run: Path, lines: Sequence[Line], *, viewers: int, seconds: float) -> None:
        """So many viewers for so long, while rounds are added to a run.

        Args:
            run: folder of the run that goes on.
            lines: its rounds so far.
            viewers: how many, all from the first moment.
            seconds: how long.
        """
        end = time.monotonic() + seconds
        writing = asyncio.create_task(self._write(RunFolder(run), list(lines)))
        try:
            await asyncio.gather(*(self._view(number, end) for number in range(viewers)))
        finally:
            writing.cancel()

    async def _write(self, folder: RunFolder, lines: list[Line]) -> None:
        while True:
            lines.append(next_round(lines[-1], number=len(lines) + 1))
            await asyncio.to_thread(folder.write_rounds, lines)
            self._written[len(lines)] = time.monotonic()
            await asyncio.sleep(ROUND_S)

    async def _view(self, number: int, end: float) -> None:
        is_live = number % 2 == 1
        for visit in count():
            if (left := end - time.monotonic()) <= 0:
                return
            name = self._live if is_live else self._names[(number + visit) % len(self._names)]
            await self._open("list", "/")
            await self._open("run", f"/run/{quote(name)}")
            await self._stay(self._live if is_live else "", seconds=min(STAY_S, left))

    async def _open(self, kind: str, path: str) -> None:
        start = time.monotonic()
        try:
            await fetch(self._address, path)
        except (OSError, EOFError) as error:
            self.waits.note_error(kind, error)
        else:
            self.waits.note(kind, time.monotonic() - start)

    async def _stay(self, topic: str, *, seconds: float) -> None:
        """Listen for so long. That the time is over ends it well; anything else is an error."""
        start = time.monotonic()
        try:
            async with _ask(self._address, f"/events/{quote(topic)}") as (reader, _):
                await asyncio.wait_for(self._hear(reader, start, is_live=bool(topic)), seconds)
        except TimeoutError:
            return
        except (OSError, EOFError) as error:
            self.waits.note_error("events", error)

    async def _hear(self, reader: asyncio.StreamReader, start: float, *, is_live: bool) -> None:
        """Events until they end, which raises EOFError."""
        heard = 0
        while True:
            content = (await reader.readuntil(b"\n\n")).partition(b"\ndata: ")[2]
            if not content:  # a sign of life
                continue
            now = time.monotonic()
            last = _last_round(content) if is_live else 1
            if not heard:
                self.waits.note("first event", now - start)
            elif last > heard and last in self._written:
                self.waits.note("round", now - self._written[last])
            heard = last


def _last_round(content: bytes) -> int:
    """The last round of a run's page, by one of its figures."""
    figure = json.loads(json.loads(content)["figure:curve-train-loss"])
    return int(figure["data"][-1]["x"][-1])
