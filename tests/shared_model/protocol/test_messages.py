import io
import json
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared_model.errors import ProtocolError
from shared_model.protocol.messages import (
    BackgroundRequest,
    ComponentsRequest,
    EvaluateRequest,
    ExplainRequest,
    HandshakeRequest,
    Message,
    QualityRequest,
    ReferenceRequest,
    Refusal,
    Request,
    SpreadRequest,
    StatisticsRequest,
    StudyReference,
    SumsReply,
    TrainRequest,
    count_bytes,
    is_message,
)
from shared_model.protocol.refit_messages import RefitRequest, SizesRequest
from shared_model.protocol.sum_messages import (
    ConfirmRequest,
    KeysRequest,
    OpenRequest,
    SharesRequest,
    TextsReply,
    TextsRequest,
)
from tests.shared_model.protocol.message_examples import EXAMPLES, STUDY, SUMS

TYPES = [type(example) for example in EXAMPLES]
BY_NAME = {message.__name__: message for message in TYPES}

any_message = pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)


def fields_of(message: Message) -> dict[str, Any]:
    return message.model_dump(exclude=set(message.array_fields))


def edited(message: Message, **header: str) -> RecordDict:
    """The message's record with another header."""
    record = message.to_record()
    record["header"] = ConfigRecord({**record.config_records["header"], **header})
    return record


def leaves(message: type[Message]) -> set[type[Message]]:
    below = message.__subclasses__()
    return {leaf for each in below for leaf in leaves(each)} if below else {message}


def test_examples_are_all_messages_of_the_protocol() -> None:
    assert leaves(Message) | {SumsReply, ConfirmRequest} == set(TYPES)  # which replies with a row extend
    assert leaves(Request) == {
        HandshakeRequest,
        ReferenceRequest,
        QualityRequest,
        StatisticsRequest,
        ComponentsRequest,
        TrainRequest,
        EvaluateRequest,
        BackgroundRequest,
        ExplainRequest,
        SpreadRequest,
        RefitRequest,
        SizesRequest,
        KeysRequest,
        SharesRequest,
        TextsRequest,
        OpenRequest,  # which ConfirmRequest begins
    }


@any_message
def test_message_comes_back_from_its_record(message: Message) -> None:
    back = type(message).from_record(message.to_record())
    assert type(back) is type(message)
    assert fields_of(back) == fields_of(message)
    for field in message.array_fields:
        arrays, expected = getattr(back, field), getattr(message, field)
        assert list(arrays) == list(expected)
        for name, value in expected.items():
            assert (arrays[name].dtype, arrays[name].shape) == (value.dtype, value.shape)
            assert arrays[name].tobytes() == value.tobytes()


@given(reason=st.text(max_size=200), weight=st.floats(min_value=5e-324, allow_infinity=False))
def test_text_and_numbers_come_back_to_the_last_bit(reason: str, weight: float) -> None:
    assert Refusal.from_record(Refusal(site="north", reason=reason).to_record()).reason == reason
    request = EXAMPLES[4].model_copy(update={"event_weight": weight, "preprocessing": reason})
    back = TrainRequest.from_record(request.to_record())
    assert (back.event_weight.hex(), back.preprocessing) == (weight.hex(), reason)


@any_message
def test_message_is_refused_as_any_other_type(message: Message) -> None:
    record = message.to_record()
    for other in TYPES:
        assert is_message(record, other) == (other is type(message))
        if other is not type(message):
            with pytest.raises(ProtocolError, match=f"expected a {other.__name__}, got '{type(message).__name__}'"):
                other.from_record(record)


@any_message
def test_message_is_refused_when_its_json_has_an_unknown_field(message: Message) -> None:
    text = json.dumps({**json.loads(message.model_dump_json(exclude=set(message.array_fields))), "colour": 1})
    with pytest.raises(ProtocolError, match=f"{type(message).__name__}: expected the agreed fields .*, got"):
        type(message).from_record(edited(message, json=text))


@any_message
def test_message_is_refused_when_a_field_is_missing(message: Message) -> None:
    fields = json.loads(message.model_dump_json(exclude=set(message.array_fields)))
    needed = [name for name in fields if type(message).model_fields[name].is_required()]
    assert bool(needed) == (type(message) not in {SumsReply, TextsReply})
    for name in needed:
        text = json.dumps({key: value for key, value in fields.items() if key != name})
        with pytest.raises(ProtocolError):
            type(message).from_record(edited(message, json=text))


@any_message
def test_message_is_refused_when_an_array_record_is_missing(message: Message) -> None:
    for field in message.array_fields:
        record = message.to_record()
        del record[field]
        with pytest.raises(ProtocolError, match=f"{type(message).__name__}: expected the agreed fields and arrays"):
            type(message).from_record(record)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"{}"', "{}}", "\x00", '{"arrays": {"x": 1}}'])
def test_message_is_refused_when_its_json_is_malformed(text: str) -> None:
    with pytest.raises(ProtocolError, match="SumsReply: expected the agreed fields and arrays"):
        SumsReply.from_record(edited(SumsReply(arrays=SUMS), json=text))


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x93NUMPY", np.array([1.0]).tobytes()], ids=["empty", "text", "cut", "no header"]
)
def test_message_is_refused_when_an_array_cannot_be_read(data: bytes) -> None:
    record = SumsReply(arrays={}).to_record()
    record["arrays"] = ArrayRecord({"n": Array(dtype="float64", shape=(), stype="numpy.ndarray", data=data)})
    with pytest.raises(ProtocolError, match="SumsReply: expected the agreed fields and arrays"):
        SumsReply.from_record(record)


def test_message_is_refused_when_an_array_is_serialised_another_way() -> None:
    record = SumsReply(arrays={}).to_record()
    record["arrays"] = ArrayRecord({"n": Array(dtype="float64", shape=(), stype="torch.Tensor", data=b"")})
    with pytest.raises(ProtocolError):
        SumsReply.from_record(record)


def test_message_is_refused_when_an_array_would_need_a_pickle() -> None:
    record = SumsReply(arrays={}).to_record()
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\x80\x04N."
    record["arrays"] = ArrayRecord({"n": Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=data)})
    with pytest.raises(ProtocolError):
        SumsReply.from_record(record)


def test_message_is_refused_when_the_record_is_empty() -> None:
    with pytest.raises(ProtocolError, match="expected a Refusal, got 'None'"):
        Refusal.from_record(RecordDict())
    assert not is_message(RecordDict(), Refusal)


@pytest.mark.parametrize("site", ["", "../north", "a\\b", "north\n", "n" * 201])
def test_site_name_is_refused_when_it_could_be_a_path_or_a_line(site: str) -> None:
    with pytest.raises(ValidationError):
        Refusal(site=site, reason="")
    with pytest.raises(ProtocolError):
        Refusal.from_record(edited(EXAMPLES[-1], json=json.dumps({"site": site, "reason": ""})))


@pytest.mark.parametrize(
    "change",
    [{"event_weight": 0}, {"event_weight": "x"}, {"round_number": -1}, {"phase": "late"}, {"study": None}],
    ids=lambda change: next(iter(change)),
)
def test_request_is_refused_when_a_field_is_out_of_range(change: dict[str, object]) -> None:
    message = EXAMPLES[4]
    text = json.dumps({**json.loads(message.model_dump_json(exclude=set(message.array_fields))), **change})
    with pytest.raises(ProtocolError):
        TrainRequest.from_record(edited(message, json=text))


@pytest.mark.parametrize("run_id", ["", "A", "a/b", "a" * 65])
def test_run_id_is_refused_when_it_could_be_a_path(run_id: str) -> None:
    with pytest.raises(ValidationError, match="run_id"):
        StudyReference(run_id=run_id, protocol=1, schema_sha256="0" * 64, settings={})


def test_bytes_are_counted_as_array_data_and_header_text() -> None:
    # NumPy's file header is 128 bytes; then 3 doubles; then "SumsReply" and "{}".
    assert count_bytes(SumsReply(arrays={"x": np.zeros(3)}).to_record()) == 128 + 3 * 8 + 9 + 2


NAMES = st.sampled_from(["header", "arrays", "weights", "frozen", "other"])
FIELDS = st.sampled_from(sorted({name for message in TYPES for name in message.model_fields}))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS | st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
VALUES: st.SearchStrategy[Any] = (
    st.sampled_from([message.__name__ for message in TYPES])
    | JSON.map(json.dumps)
    | st.text(max_size=10)
    | st.integers(-(2**63), 2**63 - 1)
    | st.binary(max_size=10)
    | st.lists(st.text(max_size=3), max_size=2)
)
CONFIGS = st.dictionaries(st.sampled_from(["type", "json", "other"]), VALUES, max_size=3).map(ConfigRecord)
NUMPY_FILE = Array(np.arange(3.0)).data
ARRAYS = st.builds(
    Array,
    dtype=st.sampled_from(["float32", "object", "nonsense"]),
    shape=st.tuples(st.integers(0, 2**40)),
    stype=st.sampled_from(["numpy.ndarray", "numpy.ndarray", "pickle"]),
    data=st.binary(max_size=20) | st.integers(0, len(NUMPY_FILE)).map(lambda end: NUMPY_FILE[:end]),
)
ARRAY_RECORDS = st.dictionaries(st.text(max_size=4), ARRAYS, max_size=2).map(ArrayRecord)
RECORDS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(NAMES, CONFIGS | ARRAY_RECORDS, max_size=2)


@given(message=st.sampled_from(EXAMPLES), fields=st.dictionaries(FIELDS, JSON, max_size=2), records=RECORDS)
def test_damaged_record_is_read_as_its_message_or_refused(
    message: Message, fields: dict[str, object], records: dict[str, Any]
) -> None:
    header = json.loads(message.model_dump_json(exclude=set(message.array_fields)))
    damaged = RecordDict({**edited(message, json=json.dumps({**header, **fields})), **records})
    for expected in TYPES:
        try:
            read = expected.from_record(damaged)
        except ProtocolError:
            continue  # any other error fails the test
        assert type(read) is expected


def damage(data: bytes, *, at: int, byte: int) -> bytes:
    return data[: at % len(data)] + bytes([byte]) + data[at % len(data) + 1 :]


@given(at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_damaged_array_is_read_as_an_array_or_refused(at: int, byte: int) -> None:
    record = SumsReply(arrays={}).to_record()
    data = damage(NUMPY_FILE, at=at, byte=byte)
    record["arrays"] = ArrayRecord({"n": Array(dtype="float64", shape=(3,), stype="numpy.ndarray", data=data)})
    try:
        arrays = SumsReply.from_record(record).arrays
    except ProtocolError:
        return  # any other error fails the test
    assert isinstance(arrays["n"], np.ndarray)


def zip_archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, n=np.zeros(3))
    return file.getvalue()


def numpy_header(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04",
        zip_archive(),
        numpy_header(b"((((\n"),
        numpy_header(b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }\n"),
    ],
    ids=["cut archive", "archive", "unbalanced header", "terabytes"],
)
def test_message_is_refused_when_an_array_is_made_to_harm(data: bytes) -> None:
    record = SumsReply(arrays={}).to_record()
    record["arrays"] = ArrayRecord({"n": Array(dtype="float64", shape=(3,), stype="numpy.ndarray", data=data)})
    with pytest.raises(ProtocolError, match="SumsReply: expected the agreed fields and arrays"):
        SumsReply.from_record(record)


@any_message
def test_message_is_refused_when_it_has_an_unknown_record(message: Message) -> None:
    record = message.to_record()
    record["patients"] = ArrayRecord({"ages": Array(np.zeros(3))})
    with pytest.raises(
        ProtocolError, match=f"{type(message).__name__}: expected the agreed fields and arrays, got other records"
    ):
        type(message).from_record(record)


@pytest.mark.parametrize("sha256", ["", "../../embeddings/train-x", "AB" * 32, "a" * 63, "a" * 64 + "\n", "\x00" * 64])
def test_hash_is_refused_when_it_could_be_a_path(sha256: str) -> None:
    message = EXAMPLES[6]
    text = json.dumps({**json.loads(message.model_dump_json(exclude={"weights"})), "weights_sha256": sha256})
    with pytest.raises(ProtocolError):
        EvaluateRequest.from_record(edited(message, json=text))


@pytest.mark.parametrize(
    "change",
    [
        {"round_number": 30_001},
        {"weights_round": 10**18},
        {"discarded": [[0, 10**18]]},
        {"discarded": [[0, 1]] * 101},
        {"study": {**STUDY.model_dump(), "settings": {str(number): 1 for number in range(201)}}},
        {"study": {**STUDY.model_dump(), "settings": {"x" * 65: 1}}},
        {"study": {**STUDY.model_dump(), "settings": {"head": "x" * 10_001}}},
    ],
    ids=["round", "weights round", "span", "spans", "settings", "key", "value"],
)
def test_request_is_refused_when_it_would_keep_a_hospital_busy(change: dict[str, object]) -> None:
    message = EXAMPLES[4]
    header = json.loads(message.model_dump_json(exclude=set(message.array_fields)))
    assert TrainRequest.from_record(edited(message, json=json.dumps(header)))

    with pytest.raises(ProtocolError):
        TrainRequest.from_record(edited(message, json=json.dumps({**header, **change})))
