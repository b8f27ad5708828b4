"""Results shared by all who ask for them at the same moment: made once."""

import threading
import time
from collections.abc import Callable, Hashable
from typing import TypeVar

T = TypeVar("T")

LASTS_S = 0.5  # no more than a reader could tell; the events that follow a page mend it


class Shared:
    """Gives what was just made again. One thing is made at a time: whoever asked for the same meanwhile gets it, too.

    Args:
        lasts_s: how long something is given again after it was made, in seconds.
        clock: monotonic seconds.
    """

    def __init__(self, *, lasts_s: float = LASTS_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._lasts_s, self._clock = lasts_s, clock
        self._made: dict[Hashable, tuple[float, object]] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns, or returned a moment ago for the same key, which names this maker."""
        with self._lock:
            now = self._clock()
            self._made = {kept: made for kept, made in self._made.items() if now - made[0] < self._lasts_s}
            if key not in self._made:
                value = make()
                self._made[key] = (self._clock(), value)
            return self._made[key][1]  # type: ignore[return-value] # a key has one maker
