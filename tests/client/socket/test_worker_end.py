import os
import pwd
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, RecordDict

from client.socket.frames import HEAD, MAGIC, VERSION, pack_head
from client.socket.worker_end import Door, Peer, open_door
from shared_model.errors import LockedError, SiteError
from shared_model.protocol.messages import HANDSHAKE, Refusal, is_message
from tests.client.served_worker import LOG, frame, refusal_of, send_raw, serving
from tests.waiting import PATIENCE_S

QUESTION = RecordDict({"header": ConfigRecord({"type": "HandshakeRequest", "json": "{}"})})
SYSTEM_PYTHON = Path("/usr/bin/python3")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user")
with_system_python = pytest.mark.skipif(
    not SYSTEM_PYTHON.exists(), reason=f"no {SYSTEM_PYTHON}, which every user could run"
)


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path / "socket" / "w", max_bytes=10_000, head_timeout_s=0.3, frame_timeout_s=0.6)


def echo(kind: str, question: RecordDict) -> RecordDict:
    return RecordDict({"kind": ConfigRecord({"kind": kind}), "question": question["header"]})


def _kind_of(reply: RecordDict | None) -> object:
    assert reply is not None
    return reply.config_records["kind"]["kind"]


def test_question_is_handed_over_and_its_answer_comes_back(door: Door) -> None:
    with serving(door, echo) as path:
        reply = send_raw(path, frame("train", QUESTION), end=False)

    assert _kind_of(reply) == "train"
    assert reply is not None
    assert reply["question"] == QUESTION["header"]


def test_socket_and_its_folder_are_open_to_their_owner_only(door: Door) -> None:
    before = os.umask(0)
    try:
        with serving(door, echo) as path:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(before)
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o750, 0o777])
def test_worker_refuses_a_folder_that_others_can_open(door: Door, mode: int) -> None:
    door.path.parent.mkdir()
    door.path.parent.chmod(mode)

    with pytest.raises(SiteError, match=f"that nobody else can open, got owner {os.geteuid()}, mode {mode:04o}"):
        open_door(door).__enter__()
    assert not door.path.exists()


def test_worker_refuses_a_path_that_the_system_would_cut(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="at most 107 bytes"):
        open_door(Door(tmp_path / ("x" * 108))).__enter__()


def test_second_worker_is_refused_and_the_first_goes_on(door: Door) -> None:
    with serving(door, echo) as path:
        with pytest.raises(LockedError, match=f"in use by process {os.getpid()}"):
            open_door(door).__enter__()
        assert _kind_of(send_raw(path, frame("train", QUESTION))) == "train"


def test_socket_of_a_killed_worker_is_replaced(door: Door) -> None:
    door.path.parent.mkdir(mode=0o700)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(door.path))
    left.close()  # without removing it, as a killed process does

    with serving(door, echo) as path:
        assert _kind_of(send_raw(path, frame("train", QUESTION))) == "train"


def test_second_question_waits_for_the_answer_to_the_first(door: Door) -> None:
    asked, may_answer, order = threading.Event(), threading.Event(), []

    def answer(kind: str, question: RecordDict) -> RecordDict:
        order.append(kind)
        asked.set()
        assert may_answer.wait(PATIENCE_S)
        return echo(kind, question)

    with serving(door, answer) as path:
        first = threading.Thread(target=send_raw, args=(path, frame("train", QUESTION)))
        first.start()
        assert asked.wait(PATIENCE_S)
        second = threading.Thread(target=send_raw, args=(path, frame("evaluate", QUESTION)))
        second.start()
        time.sleep(0.2)
        assert order == ["train"]
        may_answer.set()
        first.join(PATIENCE_S)
        second.join(PATIENCE_S)
    assert order == ["train", "evaluate"]


@pytest.mark.parametrize("start", [b"", b"HP", frame("train", QUESTION)[:-1]], ids=["nothing", "little", "nearly all"])
def test_courier_that_dawdles_is_dropped_and_the_next_is_answered(door: Door, start: bytes) -> None:
    with serving(door, echo) as path, socket.socket(socket.AF_UNIX) as idle:
        idle.settimeout(PATIENCE_S)
        idle.connect(str(path))
        idle.sendall(start)

        assert _kind_of(send_raw(path, frame("train", QUESTION))) == "train"

        assert idle.recv(1) == b""


def test_courier_that_sends_drop_by_drop_is_dropped(door: Door) -> None:
    with serving(door, echo) as path, socket.socket(socket.AF_UNIX) as slow:
        slow.connect(str(path))

        def drip() -> None:
            for byte in pack_head("train", 5000) + bytes(5000):
                slow.sendall(bytes([byte]))
                time.sleep(0.05)

        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            drip()


def test_courier_that_does_not_take_its_answer_is_dropped(door: Door) -> None:
    big = RecordDict({"kind": ConfigRecord({"kind": "x" * 2_000_000})})

    def answer(kind: str, question: RecordDict) -> RecordDict:
        return big if kind == "train" else echo(kind, question)

    with serving(door, answer) as path, socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(path))
        deaf.sendall(frame("train", QUESTION))

        assert _kind_of(send_raw(path, frame("evaluate", QUESTION))) == "evaluate"


REFUSED = {
    "other bytes": (b"GET / HTTP/1.1\r\n\r\n", "expected a frame of hipfed"),
    "another version": (HEAD.pack(MAGIC, VERSION + 1, 5, 0) + b"train", f"expected version {VERSION}"),
    "too long": (
        pack_head("train", 10_001) + bytes(10_001),
        "expected a payload of at most 10000 bytes, got one of 10001",
    ),
    "no record": (pack_head("train", 12) + b"\xffTOP-SECRET\xff", "expected a record of Flower as payload"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
def test_frame_is_refused_with_its_reason_and_logged_without_its_payload(
    door: Door, caplog: pytest.LogCaptureFixture, data: bytes, reason: str
) -> None:
    asked: list[str] = []

    def answer(kind: str, question: RecordDict) -> RecordDict:
        asked.append(kind)
        return echo(kind, question)

    with caplog.at_level("INFO", LOG.name), serving(door, answer) as path:
        assert reason in refusal_of(send_raw(path, data))
        assert asked == []
        assert _kind_of(send_raw(path, frame("train", QUESTION))) == "train"

    (line,) = caplog.messages
    assert line.startswith(f"frame of process {os.getpid()} refused, kind ")
    assert reason in line
    assert "SECRET" not in line


def test_cut_off_frame_is_closed_and_logged(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", LOG.name), serving(door, echo) as path:
        assert send_raw(path, frame("train", QUESTION)[:-3]) is None

    assert "before the end" in caplog.messages[0]


def test_worker_outlives_an_answer_that_fails(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    def answer(kind: str, question: RecordDict) -> RecordDict:
        if kind == "train":
            raise RuntimeError
        return echo(kind, question)

    with serving(door, answer) as path:
        assert send_raw(path, frame("train", QUESTION)) is None
        assert _kind_of(send_raw(path, frame("evaluate", QUESTION))) == "evaluate"
    assert "connection failed" in caplog.messages


def test_door_lets_in_its_own_user_root_and_the_courier(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    courier = pwd.struct_passwd(("courier", "x", 990, 990, "", "/", "/bin/false"))

    def let_in(door: Door) -> list[int]:
        return [uid for uid in (0, 990, 991, 1000, 65534) if door.lets_in(Peer(pid=1, uid=uid, gid=1000))]

    assert let_in(Door(tmp_path / "w")) == [0, 1000]
    assert let_in(Door(tmp_path / "w", courier)) == [0, 990, 1000]


ASK = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(600)
try:
    connection.connect(sys.argv[1])
    connection.sendall(sys.stdin.buffer.read())
    print(len(connection.recv(100)))
except OSError as error:
    print(type(error).__name__)
"""


def _ask_as(user: str, path: Path) -> str:
    command = [str(SYSTEM_PYTHON), "-I", "-c", ASK, str(path)]
    account = pwd.getpwnam(user)
    done = subprocess.run(
        command,
        input=frame("train", QUESTION),
        capture_output=True,
        check=True,
        cwd="/",
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
        timeout=PATIENCE_S,
    )
    return done.stdout.decode().strip()


@as_root
@with_system_python
def test_process_of_another_user_is_refused_by_the_kernel_and_by_the_worker(
    open_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(Door(open_folder / "socket" / "w"), echo) as path:
        assert _ask_as("nobody", path) == "PermissionError"
        path.parent.chmod(0o755)
        path.chmod(0o666)
        assert _ask_as("nobody", path) in {"0", "BrokenPipeError", "ConnectionResetError"}
    (line,) = caplog.messages
    assert f"of user {pwd.getpwnam('nobody').pw_uid} is not the courier" in line


@as_root
@with_system_python
def test_courier_of_another_user_is_answered_and_a_third_user_is_not(open_folder: Path) -> None:
    with serving(Door(open_folder / "socket" / "w", pwd.getpwnam("nobody")), echo) as path:
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o710
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert int(_ask_as("nobody", path)) > 0
        assert _ask_as("daemon", path) == "PermissionError"


@as_root
def test_worker_says_which_folder_the_courier_cannot_pass(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)

    with pytest.raises(SiteError, match=f"a way to it for nobody, got {closed}, which that user may not pass"):
        open_door(Door(closed / "socket" / "w", pwd.getpwnam("nobody"))).__enter__()


def test_refusal_of_the_socket_names_the_hospital(door: Door) -> None:
    with serving(door, echo) as path:
        reply = send_raw(path, b"x" * 100)
    assert reply is not None
    assert is_message(reply, Refusal)
    assert Refusal.from_record(reply).site == "east"
    assert HANDSHAKE not in Refusal.from_record(reply).reason
