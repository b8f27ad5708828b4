"""A worker's socket in a thread of the test, and a courier that sends whatever a test wants."""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flwr.app import RecordDict

from client.socket.frames import pack_head, pack_record, parse_record, read_frame
from client.socket.worker_end import Door, open_door, serve
from shared_model.protocol.messages import Refusal
from tests.waiting import PATIENCE_S

# Cases of each property-based test of what comes over the socket.
LONG = bool(os.environ.get("HIPFED_LONG"))
CASES = 10_000 if LONG else 200
FUZZ_TIMEOUT_S = 7200 if LONG else 1800

LOG = logging.getLogger("hipfed.test.socket")


@contextmanager
def serving(door: Door, answer: Callable[[str, RecordDict], RecordDict]) -> Iterator[Path]:
    """The socket's path, while a thread answers there."""
    with open_door(door) as listener:
        thread = threading.Thread(target=serve, args=(listener, door, answer), kwargs={"site": "east", "log": LOG})
        thread.start()
        try:
            yield door.path
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def frame(kind: str, record: RecordDict) -> bytes:
    """A whole frame."""
    payload = pack_record(record)
    return pack_head(kind, len(payload)) + payload


def send_raw(path: Path, data: bytes, *, end: bool = True) -> RecordDict | None:
    """What comes back for these bytes; None where the connection is closed without an answer.

    Args:
        path: of the socket.
        data: to send.
        end: whether to say that nothing more will come.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(str(path))
        received = bytearray()
        with suppress(BrokenPipeError):  # the worker had enough
            connection.sendall(data)
            if end:
                connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while chunk := connection.recv(2**16):
                received += chunk
    if not received:
        return None
    return parse_record(read_frame(receiver_of(bytes(received))).payload)


def receiver_of(data: bytes) -> Callable[[int], bytes]:
    """A stream of these bytes, which then ends."""
    left = bytearray(data)

    def receive(n_bytes: int) -> bytes:
        part = bytes(left[:n_bytes])
        del left[:n_bytes]
        return part

    return receive


def refusal_of(record: RecordDict | None) -> str:
    """The reason of a refusal.

    Raises:
        ProtocolError: it is none.
    """
    assert record is not None, "expected a refusal, got a closed connection"
    return Refusal.from_record(record).reason
