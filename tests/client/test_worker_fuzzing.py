"""Whatever comes over the socket, the worker says no or closes the connection, and answers the next question.

HIPFED_LONG=1 draws 10,000 cases a test.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from client.site import Site
from client.socket.frames import HEAD, MAGIC, VERSION, pack_head, pack_record, parse_record
from client.socket.worker_end import Door
from client.worker.answering import Worker
from shared_model.protocol.messages import (
    HANDSHAKE,
    KINDS,
    STATISTICS,
    EvaluateReply,
    ExplainReply,
    HandshakeReply,
    QualityReply,
    Refusal,
    Request,
    SumsReply,
    is_message,
)
from tests.client.served_worker import CASES, FUZZ_TIMEOUT_S, frame, send_raw, serving
from tests.client.socket.test_frames import mutate
from tests.server.small_cohort import requests_of_every_kind, small_settings, write_small_cohort

REPLIES = (HandshakeReply, SumsReply, QualityReply, EvaluateReply, ExplainReply, Refusal)
MARK_OF_A_PATIENT = b"east-0"

fuzzed = settings(max_examples=CASES)
pytestmark = pytest.mark.timeout(FUZZ_TIMEOUT_S)


@dataclass(frozen=True)
class Fuzzed:
    """A hospital that lets every study ask, so that what is strange gets as far as it can."""

    worker: Worker = field(repr=False)
    path: Path
    requests: dict[str, Request] = field(repr=False)
    frames: dict[str, bytes] = field(repr=False)


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    folder = tmp_path_factory.mktemp("fuzzed")
    cohort = write_small_cohort(folder / "cohort", hospitals=1, series=True)
    worker = Worker(Site("east", cohort / "east", folder / "cache"))
    requests = requests_of_every_kind(worker.site, small_settings())
    frames = {kind: frame(kind, request.to_record()) for kind, request in requests.items()}
    with serving(Door(folder / "s" / "w", max_bytes=2**22), worker.answer) as path:
        yield Fuzzed(worker, path, requests, frames)


def _check(reply: RecordDict | None) -> None:
    """A closed connection, a refusal, or an answer of the protocol; never a patient."""
    if reply is not None:
        assert any(is_message(reply, message) for message in REPLIES)
        assert MARK_OF_A_PATIENT not in pack_record(reply)


def _check_alive(fuzz: Fuzzed) -> None:
    reply = send_raw(fuzz.path, fuzz.frames[HANDSHAKE])
    assert reply is not None
    assert is_message(reply, HandshakeReply)


@fuzzed
@given(data=st.binary(max_size=400))
def test_worker_outlives_random_bytes(fuzz: Fuzzed, data: bytes) -> None:
    _check(send_raw(fuzz.path, data))
    _check_alive(fuzz)


@fuzzed
@given(
    version=st.sampled_from([VERSION, VERSION + 1, 0]),
    kind_length=st.integers(0, 255),
    n_bytes=st.integers(0, 100) | st.integers(0, 2**64 - 1),
    rest=st.binary(max_size=400),
)
def test_worker_outlives_heads_that_lie(
    fuzz: Fuzzed, version: int, kind_length: int, n_bytes: int, rest: bytes
) -> None:
    _check(send_raw(fuzz.path, HEAD.pack(MAGIC, version, kind_length, n_bytes) + rest))
    _check_alive(fuzz)


@fuzzed
@given(kind=st.sampled_from([*KINDS, "reply", "query.patients"]), payload=st.binary(max_size=300))
def test_worker_outlives_frames_with_random_payloads(fuzz: Fuzzed, kind: str, payload: bytes) -> None:
    _check(send_raw(fuzz.path, pack_head(kind, len(payload)) + payload))
    _check_alive(fuzz)


@fuzzed
@given(kind=st.sampled_from(KINDS), data=st.data())
def test_worker_outlives_mutated_questions(fuzz: Fuzzed, kind: str, data: st.DataObject) -> None:
    _check(send_raw(fuzz.path, mutate(fuzz.frames[kind], data)))
    _check_alive(fuzz)


NAMES = st.sampled_from(
    ["header", "weights", "heads", "frozen", "control", "background", "background_present", "reference"]
)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats()
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
CONFIGS = st.dictionaries(
    st.sampled_from(["type", "json", "other"]),
    JSON.map(json.dumps) | st.text(max_size=10) | st.binary(max_size=10) | st.lists(st.booleans(), max_size=2),
    max_size=3,
).map(lambda values: ConfigRecord(dict(values)))
ARRAYS = (
    st.builds(
        lambda values, dtype: Array(np.asarray(values, dtype=dtype)),
        st.lists(st.integers(0, 100), max_size=6),
        st.sampled_from(["float32", "int8", "bool", "<U4", "complex64"]),
    )
    | st.lists(st.floats(), max_size=6).map(lambda values: Array(np.asarray(values, dtype=np.float64)))
    | st.builds(
        Array,
        dtype=st.sampled_from(["float32", "object", "nonsense"]),
        shape=st.tuples(st.integers(0, 2**31 - 1)),
        stype=st.sampled_from(["numpy.ndarray", "pickle"]),
        data=st.binary(max_size=40),
    )
)
# As bytes, which are short where a failing case is printed.
PAYLOADS = st.dictionaries(
    NAMES,
    CONFIGS
    | st.dictionaries(st.text(max_size=6), ARRAYS, max_size=3).map(ArrayRecord)
    | st.dictionaries(st.text(max_size=6), st.integers(-5, 5), max_size=2).map(
        lambda values: MetricRecord(dict(values))
    ),
    max_size=4,
).map(lambda records: pack_record(RecordDict(records)))


@fuzzed
@given(kind=st.sampled_from(KINDS), payload=PAYLOADS)
def test_worker_refuses_garbage_records(fuzz: Fuzzed, kind: str, payload: bytes) -> None:
    reply = send_raw(fuzz.path, pack_head(kind, len(payload)) + payload)

    assert reply is not None
    assert is_message(reply, Refusal)
    _check(reply)
    _check_alive(fuzz)


FIELDS = st.sampled_from(
    (
        *("study", "phase", "round_number", "weights_round", "discarded", "trained_phases", "preprocessing", "part"),
        *("event_weight", "weights_sha256", "release_row", "background_id", "features", "tau2", "counted_round"),
        "n_sites",
    )
)
SETTINGS = st.sampled_from(["seed", "fold", "modalities", "min-patients", "device", "strata"])
STUDY_FIELDS = st.sampled_from(["run_id", "protocol", "schema_sha256", "settings"])
STRANGE = (
    JSON
    | st.sampled_from(["../../x", "\x00", "{}", "NaN", "joint", "unimodal", "train", 30_000, 1e308, -1, [[0, 30_000]]])
    | st.dictionaries(
        st.sampled_from(["seed", "fold", "modalities", "min-patients", "device", "strata"]), JSON, max_size=2
    )
)


@fuzzed
@given(
    kind=st.sampled_from(KINDS),
    fields=st.dictionaries(FIELDS, STRANGE, max_size=2),
    study=st.dictionaries(STUDY_FIELDS, STRANGE, max_size=1),
    arrays=st.dictionaries(st.text(max_size=6), ARRAYS, max_size=2),
    where=NAMES,
)
def test_worker_outlives_questions_with_strange_fields_and_arrays(
    fuzz: Fuzzed,
    kind: str,
    fields: dict[str, Any],
    study: dict[str, Any],
    arrays: dict[str, Array],
    where: str,
) -> None:
    record = fuzz.requests[kind].to_record()
    header = record.config_records["header"]
    content = json.loads(str(header["json"]))
    content |= {name: value for name, value in fields.items() if name in content}
    if isinstance(content["study"], dict):
        content["study"] |= study
    header["json"] = json.dumps(content)
    if arrays and where in record.array_records:
        record[where] = ArrayRecord({**record.array_records[where], **arrays})

    _check(fuzz.worker.answer(kind, parse_record(pack_record(record))))


def test_worker_is_as_it_was_after_all_that(fuzz: Fuzzed) -> None:
    reply = send_raw(fuzz.path, fuzz.frames[STATISTICS])

    assert reply is not None
    assert is_message(reply, SumsReply)
