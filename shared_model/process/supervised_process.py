"""One half of a site that must keep running: how it is started, when it is ready, and what its end means."""

import re
import signal
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LONGEST_REASON = 400  # characters
_BORDER = "│|"  # of the box that Typer draws around an error; in ASCII where the locale knows no other


@dataclass(frozen=True)
class Ending:
    """What the end of a part means.

    Attributes:
        reason: in plain words, with what to do.
        min_wait_s: before it is started again; a cause that only a person can remove needs no haste.
    """

    reason: str
    min_wait_s: float = 0.0


class Part(ABC):
    """What the supervisor asks of a part; subclasses say what is special.

    Attributes:
        name: of the part, its log and its line in the status.
        folder: its working directory.
        environment: its own.
        ready_timeout_s: a part that is not ready by then is started again; None waits for ever.
    """

    ready_timeout_s: float | None = 120.0

    def __init__(self, name: str, *, folder: Path, environment: Mapping[str, str]) -> None:
        self.name, self.folder, self.environment = name, folder, environment
        self._last_lines: deque[str] = deque(maxlen=40)

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What to start; asked before every start."""

    @abstractmethod
    def is_ready(self) -> bool:
        """True if the part does its work; asked a few times a second after a start."""

    def made_ready(self) -> str:
        """What must be done once the part is ready after a start; returns what went wrong, or ""."""
        return ""

    def trouble(self) -> str:
        """What keeps the part from its work though it was made ready; "" if nothing does."""
        return ""

    def must_restart(self) -> str:
        """Why the part must be ended and started again though it runs; "" if it need not."""
        return ""

    def forget(self) -> None:
        """Forget what the former process said."""
        self._last_lines.clear()

    def observe(self, line: str) -> None:
        """Take a line of the part's output."""
        self._last_lines.append(line)

    def explain(self, status: int) -> Ending:
        """What an exit status means."""
        if status < 0:
            return Ending(f"{self.name} was killed ({signal.Signals(-status).name})")
        words = last_words(self._last_lines)[:_LONGEST_REASON] or "it said nothing"
        return Ending(f"{self.name} ended by itself (exit status {status}): {words}")


def last_words(lines: Iterable[str]) -> str:
    """The last line that says something; of a box around an error, all that is in it. "" if none does."""
    said = [line.strip() for line in lines]
    while said and not re.search(r"\w", said[-1]):
        said.pop()
    if not said or said[-1][0] not in _BORDER:
        return said[-1] if said else ""
    box: list[str] = []
    while said and said[-1] and said[-1][0] in _BORDER:
        line = said.pop()[2:-2]
        box.append(line if line == line.rstrip() else f"{line.rstrip()} ")  # a line without room left cuts a word
    return "".join(reversed(box)).strip()
