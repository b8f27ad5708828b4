import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_to_proto
from hypothesis import given, settings
from hypothesis import strategies as st

from client.socket.frames import (
    HEAD,
    MAGIC,
    VERSION,
    CutOffError,
    FrameError,
    pack_head,
    pack_record,
    parse_record,
    read_frame,
)
from shared_model.protocol.messages import HANDSHAKE
from tests.client.served_worker import CASES, FUZZ_TIMEOUT_S, frame, receiver_of

RECORD = RecordDict(
    {
        "header": ConfigRecord({"type": "X", "json": "{}"}),
        "weights": ArrayRecord({"w": Array(np.array([1.5, -0.0])), "empty": Array(np.zeros((0, 3), np.float32))}),
    }
)
FRAME = frame(HANDSHAKE, RECORD)

fuzzed = settings(max_examples=CASES)
pytestmark = pytest.mark.timeout(FUZZ_TIMEOUT_S)


def test_frame_comes_back_to_the_last_bit() -> None:
    read = read_frame(receiver_of(FRAME))

    assert read.kind == HANDSHAKE
    record = parse_record(read.payload)
    assert record == RECORD
    assert record.array_records["weights"]["w"].numpy().tobytes() == np.array([1.5, -0.0]).tobytes()


def test_two_frames_of_one_stream_are_read_one_after_the_other() -> None:
    receive = receiver_of(FRAME + frame("reply", RecordDict()))

    assert [read_frame(receive).kind, read_frame(receive).kind] == [HANDSHAKE, "reply"]


def test_frame_is_read_when_it_comes_byte_by_byte() -> None:
    receive = receiver_of(FRAME)

    assert parse_record(read_frame(lambda n: receive(min(n, 1))).payload) == RECORD


@pytest.mark.parametrize("length", range(len(FRAME)))
def test_frame_that_ends_early_is_cut_off(length: int) -> None:
    with pytest.raises(CutOffError):
        read_frame(receiver_of(FRAME[:length]))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (HEAD.pack(b"HTTP", VERSION, 5, 0), "expected a frame of hipfed, got other bytes"),
        (HEAD.pack(MAGIC, VERSION + 1, 5, 0), f"expected version {VERSION}, got {VERSION + 1}"),
        (HEAD.pack(MAGIC, VERSION, 0, 0), "expected a kind of 1 to 64"),
        (HEAD.pack(MAGIC, VERSION, 5, 1001), "expected a payload of at most 1000 bytes, got one of 1001"),
        (HEAD.pack(MAGIC, VERSION, 5, 2**64 - 1), "expected a payload of at most 1000 bytes"),
    ],
    ids=["magic", "version", "no kind", "too long", "far too long"],
)
def test_frame_is_refused_by_its_head(head: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        read_frame(receiver_of(head + b"train" + bytes(10)), max_bytes=1000)


@pytest.mark.parametrize("kind", ["", "Train", "train\n", "../x", "é", "x" * 65, "1"])
def test_kind_is_refused_when_it_is_not_a_name(kind: str) -> None:
    with pytest.raises(FrameError):
        pack_head(kind, 0)
    text = kind.encode()
    with pytest.raises(FrameError):
        read_frame(receiver_of(HEAD.pack(MAGIC, VERSION, len(text), 0) + text))


def test_memory_grows_with_what_came_and_not_with_what_was_announced() -> None:
    head = pack_head("train", 2**30)
    tracemalloc.start()
    try:
        with pytest.raises(CutOffError):
            read_frame(receiver_of(head + bytes(1000)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**22


def test_payload_is_refused_when_it_holds_more_records_or_arrays_than_any_message() -> None:
    records = RecordDict({str(index): ConfigRecord() for index in range(17)})
    with pytest.raises(FrameError, match="at most 16 records, got 17"):
        parse_record(pack_record(records))
    many = RecordDict({"weights": ArrayRecord({str(i): Array(np.zeros(0)) for i in range(20_001)})})
    with pytest.raises(FrameError, match="at most 20000 arrays and values, got 20001"):
        parse_record(pack_record(many))


@pytest.mark.parametrize("value", [{}, {"n": 3}, {"n": [0.5] * 100}])
def test_payload_is_refused_when_it_holds_metrics(value: dict[str, Any]) -> None:
    with pytest.raises(FrameError, match="expected a record of Flower as payload"):
        parse_record(pack_record(RecordDict({"metrics": MetricRecord(value)})))


@pytest.mark.parametrize(
    "payload",
    [
        b"\x0a\x00" * 1_000_000,
        recorddict_to_proto(RecordDict({"x": ConfigRecord({"n": [1] * 500_000})})).SerializeToString(),
        recorddict_to_proto(
            RecordDict({"x": ArrayRecord({"w": Array("f4", (1,) * 500_000, "", b"")})})
        ).SerializeToString(),
    ],
    ids=["records", "list", "shape"],
)
def test_payload_of_which_protobuf_would_make_many_objects_is_refused_before_it_does(
    payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.socket.frames._MAX_FIELDS", 2000)  # types are checked in tests, which makes each slow
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match="expected a record of Flower as payload"):
            parse_record(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_payload_is_refused_when_a_record_is_of_no_type() -> None:
    with pytest.raises(FrameError, match="expected a record of Flower as payload, got ValueError"):
        parse_record(b"\x0a\x00")


@fuzzed
@given(data=st.binary(max_size=200))
def test_random_bytes_are_a_frame_or_refused(data: bytes) -> None:
    assert _read(data) in OUTCOMES


@fuzzed
@given(
    version=st.integers(0, 255), kind_length=st.integers(0, 255), n_bytes=st.integers(0, 2**64 - 1), rest=st.binary()
)
def test_random_bytes_after_a_magic_are_a_frame_or_refused(
    version: int, kind_length: int, n_bytes: int, rest: bytes
) -> None:
    assert _read(HEAD.pack(MAGIC, version, kind_length, n_bytes) + rest) in OUTCOMES


@fuzzed
@given(data=st.binary(max_size=300))
def test_random_payload_is_a_record_or_refused(data: bytes) -> None:
    assert _read(pack_head("train", len(data)) + data) in OUTCOMES


@fuzzed
@given(data=st.data())
def test_mutated_frame_is_a_frame_or_refused(data: st.DataObject) -> None:
    assert _read(mutate(FRAME, data)) in OUTCOMES


OUTCOMES = {"a record", "refused"}


def _read(data: bytes) -> str:
    """Read as the worker does, and say what came of it; no error but FrameError is caught."""
    try:
        read = read_frame(receiver_of(data), max_bytes=2**16)
        record = parse_record(read.payload)
    except FrameError:
        return "refused"
    assert len(read.payload) <= 2**16
    return "a record" if isinstance(record, RecordDict) else type(record).__name__


def test_whole_frame_is_read_and_cut_one_refused() -> None:
    assert _read(FRAME) == "a record"
    assert _read(FRAME[:-1]) == "refused"


def mutate(frame: bytes, data: Any) -> bytes:
    """A frame of which some bytes were changed, taken out, doubled or put in, or whose announced length is another."""
    changed = bytearray(frame)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed)))
        match data.draw(st.sampled_from(["set", "cut", "insert", "double", "length"])):
            case "set":
                changed[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
            case "cut":
                del changed[at : at + data.draw(st.integers(1, 50))]
            case "insert":
                changed[at:at] = data.draw(st.binary(max_size=20))
            case "double":
                changed[at:at] = changed[at : at + 30]
            case "length" if len(changed) >= HEAD.size:
                changed[6:14] = struct.pack(">Q", data.draw(st.integers(0, len(changed) + 5)))
    return bytes(changed)
