"""A TCP proxy on loopback that stands for a slow line: a rate for each direction, stalls, and cuts."""

import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

_PIECE = 16 * 1024


class ThrottlingProxy:
    """Forwards connections to one address; all of a direction share its rate.

    Args:
        target: host and port.
        port: where it listens, on loopback.

    Attributes:
        bytes_per_s: of each direction; None is as fast as it can.
        down, up: bytes passed to and from whoever connects.
    """

    def __init__(self, target: tuple[str, int], *, port: int) -> None:
        self._target = target
        self.bytes_per_s: float | None = None
        self.down = self.up = 0
        self._cut_until = 0.0
        self._stalled_until = {"up": 0.0, "down": 0.0}
        self._busy_until = {"up": 0.0, "down": 0.0}
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self, seconds: float, *, ways: Sequence[str] = ("up", "down")) -> None:
        """Nothing passes for a while in these directions: what comes is kept until then."""
        for way in ways:
            self._stalled_until[way] = time.monotonic() + seconds

    def break_off(self, seconds: float) -> None:
        """For a while every connection is cut, and each new one as soon as it is accepted, as a failing proxy does."""
        self._cut_until = time.monotonic() + seconds

    def close(self) -> None:
        """Accept no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        if time.monotonic() < self._cut_until:
            near.close()
            return
        with near, suppress(ConnectionError), socket.create_connection(self._target) as far:
            up = threading.Thread(target=self._pump, args=(near, far, "up"))
            up.start()
            self._pump(far, near, "down")
            up.join()

    def _pump(self, source: socket.socket, sink: socket.socket, direction: str) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE):
                if time.monotonic() < self._cut_until:
                    break
                self._wait_turn(direction, len(piece))
                if time.monotonic() < self._cut_until:
                    break
                sink.sendall(piece)
        for end in (source, sink):  # so that the other direction ends, too
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _wait_turn(self, direction: str, n_bytes: int) -> None:
        with self._lock:
            setattr(self, direction, getattr(self, direction) + n_bytes)
            begin = max(self._busy_until[direction], time.monotonic())
            self._busy_until[direction] = begin + (n_bytes / self.bytes_per_s if self.bytes_per_s else 0.0)
            ready = self._busy_until[direction]
        while (left := max(ready, self._stalled_until[direction]) - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
