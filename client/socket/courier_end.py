"""The courier's end of the socket: hands over a question and waits, within limits, also for a worker that restarts."""

import socket
import time
from contextlib import suppress
from pathlib import Path

from flwr.app import RecordDict

from client.socket.frames import (
    DEFAULT_MAX_BYTES,
    REPLY,
    CutOffError,
    FrameError,
    pack_head,
    pack_record,
    parse_record,
    read_frame,
)
from shared_model.errors import HipfedError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
MOST_LOSSES = 3


class WorkerAwayError(HipfedError):
    """The hospital's worker gave no answer; the text names no path."""


def ask_worker(
    path: Path, kind: str, question: RecordDict, *, limit_s: float, max_bytes: int = DEFAULT_MAX_BYTES
) -> RecordDict:
    """The worker's answer to one question.

    A worker that is not there yet, or goes away while it answers, is asked again: an answer changes nothing that a
    second one would not change alike. One that goes away `MOST_LOSSES` times is not asked more: the question ends it.

    Args:
        path: of the worker's socket.
        kind: message kind.
        question: the request's record.
        limit_s: longest wait for the answer, all attempts together.
        max_bytes: longest payload of the answer.

    Raises:
        WorkerAwayError: no answer in time, no access, or a worker that this question ends.
        FrameError: the worker speaks another version, or the answer is too long.
    """
    end, pause_s, losses = time.monotonic() + limit_s, FIRST_PAUSE_S, 0
    payload = pack_record(question)
    while True:
        try:
            return _ask_once(path, kind, payload, end=end, max_bytes=max_bytes)
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            pass  # no worker listens yet, or too many wait
        except (CutOffError, ConnectionError) as error:
            losses += 1
            if losses == MOST_LOSSES:
                raise WorkerAwayError(
                    f"the hospital's worker went away {losses} times while it answered {kind}; see its worker log"
                ) from error
        except TimeoutError as error:
            raise WorkerAwayError(f"the hospital's worker did not answer {kind} within {limit_s:g} s") from error
        except OSError as error:
            raise WorkerAwayError(f"the hospital's worker cannot be reached: {type(error).__name__}") from error
        time.sleep(max(0.0, min(pause_s, end - time.monotonic())))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _ask_once(path: Path, kind: str, payload: bytes, *, end: float, max_bytes: int) -> RecordDict:
    """One attempt; errors are the socket's own, or TimeoutError at `end`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:

        def left_s() -> float:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            return left

        def receive(n_bytes: int) -> bytes:
            connection.settimeout(left_s())
            return connection.recv(n_bytes)

        connection.settimeout(left_s())
        connection.connect(str(path))
        with suppress(BrokenPipeError):  # a worker that refuses a question says so before it has read it all
            connection.sendall(pack_head(kind, len(payload)))
            connection.settimeout(left_s())
            connection.sendall(payload)
        frame = read_frame(receive, max_bytes=max_bytes)
    if frame.kind != REPLY:
        raise FrameError(f"answer of the worker: expected a {REPLY}, got {frame.kind}.")
    return parse_record(frame.payload)
