import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, RecordDict

from client.socket.courier_end import MOST_LOSSES, WorkerAwayError, ask_worker
from client.socket.frames import HEAD, MAGIC, VERSION, FrameError
from client.socket.worker_end import Door
from shared_model.protocol.messages import Refusal
from tests.client.served_worker import frame, serving
from tests.waiting import PATIENCE_S

QUESTION = RecordDict({"header": ConfigRecord({"x": 1})})
ANSWER = RecordDict({"header": ConfigRecord({"x": 2})})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket" / "w"


@contextmanager
def _scripted(path: Path, *replies: bytes) -> Iterator[list[int]]:
    """A listener that takes one connection for each reply, reads a little, answers with that, and closes."""
    path.parent.mkdir()
    taken: list[int] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for reply in replies:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(reply)
                taken.append(1)

        thread = threading.Thread(target=serve)
        thread.start()
        yield taken
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_worker_is_asked_again_when_it_goes_away_while_it_answers(path: Path) -> None:
    with _scripted(path, b"", frame("reply", ANSWER)[:-2], frame("reply", ANSWER)) as taken:
        assert ask_worker(path, "train", QUESTION, limit_s=PATIENCE_S) == ANSWER
    assert len(taken) == 3


def test_worker_is_not_asked_for_ever_when_the_question_ends_it(path: Path) -> None:
    with (
        _scripted(path, *[b""] * MOST_LOSSES) as taken,
        pytest.raises(WorkerAwayError, match=f"went away {MOST_LOSSES} times while it answered train"),
    ):
        ask_worker(path, "train", QUESTION, limit_s=PATIENCE_S)
    assert len(taken) == MOST_LOSSES


def test_courier_waits_for_a_worker_that_starts_later(path: Path) -> None:
    replies: list[RecordDict] = []

    def ask() -> None:
        replies.append(ask_worker(path, "train", QUESTION, limit_s=PATIENCE_S))

    courier = threading.Thread(target=ask)
    courier.start()
    time.sleep(0.3)
    with serving(Door(path), lambda *_: ANSWER):
        courier.join(PATIENCE_S)
    assert replies == [ANSWER]


def test_courier_gives_up_at_its_limit_when_no_worker_comes(path: Path) -> None:
    begin = time.monotonic()

    with pytest.raises(WorkerAwayError, match=r"did not answer train within 0\.4 s") as caught:
        ask_worker(path, "train", QUESTION, limit_s=0.4)

    assert time.monotonic() - begin >= 0.4
    assert str(path) not in caught.value.public_reason


def test_courier_gives_up_at_its_limit_when_the_worker_works_too_long(path: Path) -> None:
    done = threading.Event()

    def answer(*_: object) -> RecordDict:
        assert done.wait(PATIENCE_S)
        return ANSWER

    with serving(Door(path), answer):
        with pytest.raises(WorkerAwayError, match=r"within 0\.3 s"):
            ask_worker(path, "train", QUESTION, limit_s=0.3)
        assert not done.is_set()
        done.set()


def test_question_that_is_too_long_comes_back_as_the_refusal_of_the_worker(path: Path) -> None:
    long = RecordDict({"header": ConfigRecord({"x": "y" * 3_000_000})})

    with serving(Door(path, max_bytes=1000), lambda *_: ANSWER):
        reply = ask_worker(path, "train", long, limit_s=PATIENCE_S)

    assert Refusal.from_record(reply).reason.startswith("frame: expected a payload of at most 1000 bytes")


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (HEAD.pack(MAGIC, VERSION + 1, 5, 0) + b"reply", f"expected version {VERSION}"),
        (HEAD.pack(MAGIC, VERSION, 5, 2**40) + b"reply", "at most 1073741824 bytes"),
        (frame("train", ANSWER), "expected a reply, got train"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "expected a frame of hipfed"),
    ],
    ids=["version", "too long", "kind", "other bytes"],
)
def test_answer_is_refused_when_it_is_no_reply(path: Path, reply: bytes, message: str) -> None:
    with _scripted(path, reply), pytest.raises(FrameError, match=message):
        ask_worker(path, "train", QUESTION, limit_s=PATIENCE_S)


def test_path_that_is_no_socket_is_told_without_its_name(tmp_path: Path) -> None:
    with pytest.raises(WorkerAwayError) as caught:
        ask_worker(tmp_path / ("x" * 200), "train", QUESTION, limit_s=5)

    assert str(caught.value) == "the hospital's worker cannot be reached: OSError"
