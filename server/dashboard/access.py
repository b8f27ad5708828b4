"""Access to the dashboard: a token, and sessions that it opens."""

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path

from shared_model.errors import SettingsError
from shared_model.identity.key_files import read_private

SESSION_S = 8 * 3600.0
FEWEST_CHARACTERS = 20
_MOST_SESSIONS = 2000
_MOST_CLIENTS = 2000

TRIES, TRIES_S = 5, 60.0  # wrong tokens of one address in so many seconds
ALL_TRIES = 60  # of all addresses together

Clock = Callable[[], float]


def read_token(path: Path) -> str:
    """The token of a file that only this user may read.

    Raises:
        KeyFileError: it is missing, or open to others.
        SettingsError: it is no token, or a short one.
    """
    text = read_private(path).decode("utf-8", errors="replace").strip()
    if len(text) < FEWEST_CHARACTERS or len(text.split()) != 1:
        raise SettingsError(
            f"{path}: expected one token of at least {FEWEST_CHARACTERS} characters, got {len(text)} characters in "
            f"{len(text.split())} words. Make one: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return text


def make_token() -> str:
    """A new token of 256 bits."""
    return secrets.token_urlsafe(32)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).digest()


class Sessions:
    """Opens a session for who knows the token. Neither token nor session ids are kept, only their hashes.

    Args:
        token: that opens a session.
        lasts_s: how long a session lasts, in seconds, however it is used.
        clock: monotonic seconds.
    """

    def __init__(self, token: str, *, lasts_s: float = SESSION_S, clock: Clock = time.monotonic) -> None:
        self._token, self._lasts_s, self._clock = _digest(token), lasts_s, clock
        self._ends: OrderedDict[bytes, float] = OrderedDict()

    @property
    def lasts_s(self) -> float:
        """How long a session lasts."""
        return self._lasts_s

    def open(self, token: str) -> str | None:
        """Id of a new session; None if the token is wrong. How long it takes tells nothing of the token."""
        if not hmac.compare_digest(_digest(token), self._token):
            return None
        now = self._clock()
        self._ends = OrderedDict((key, end) for key, end in self._ends.items() if end > now)
        while len(self._ends) >= _MOST_SESSIONS:
            self._ends.popitem(last=False)
        session = secrets.token_urlsafe(32)
        self._ends[_digest(session)] = now + self._lasts_s
        return session

    def end_of(self, session: str) -> float | None:
        """When a session ends, on the clock; None if there is none."""
        end = self._ends.get(_digest(session))
        return end if end is not None and end > self._clock() else None


class LoginLimit:
    """How many wrong tokens are listened to.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._by_client: OrderedDict[str, deque[float]] = OrderedDict()
        self._all: deque[float] = deque(maxlen=ALL_TRIES)

    def wait_s(self, client: str) -> float:
        """Seconds until a client may try again; 0 for now."""
        now = self._clock()
        own = self._by_client.get(client)
        waits = [_wait(self._all, ALL_TRIES, now)]
        if own is not None:
            waits.append(_wait(own, TRIES, now))
        return max(waits)

    def note_wrong(self, client: str) -> None:
        """A client gave a wrong token."""
        now = self._clock()
        self._all.append(now)
        self._by_client.setdefault(client, deque(maxlen=TRIES)).append(now)
        self._by_client.move_to_end(client)
        while len(self._by_client) > _MOST_CLIENTS:
            self._by_client.popitem(last=False)


def _wait(times: deque[float], most: int, now: float) -> float:
    return max(0.0, times[0] + TRIES_S - now) if len(times) == most else 0.0
