"""Fields of protobuf messages, counted on their bytes."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as Proto
from hypothesis import given
from hypothesis import strategies as st

from client.socket.wire_fields import count_fields

MOST = 10_000
METRICS = frozenset({"flwr.proto.RecordDict.Item.metric_record"})


def _pack(record: RecordDict) -> bytes:
    packed: bytes = recorddict_to_proto(record).SerializeToString()
    return packed


def test_fields_are_counted_in_all_messages_and_bytes_of_arrays_are_not() -> None:
    small, large = (_pack(RecordDict({"w": ArrayRecord({"a": Array(np.zeros(n))})})) for n in (1, 10_000))

    # Item, key, record; its item, key, array; dtype, shape (a field, and a byte or two), stype, data.
    assert count_fields(small, Proto.DESCRIPTOR, most=MOST) == 6 + 4 + 1
    assert count_fields(large, Proto.DESCRIPTOR, most=MOST) == 6 + 4 + 2


def test_list_counts_by_its_bytes() -> None:
    empty, long = (_pack(RecordDict({"c": ConfigRecord({"n": [0] * n})})) for n in (0, 1000))

    assert (
        count_fields(long, Proto.DESCRIPTOR, most=MOST) - count_fields(empty, Proto.DESCRIPTOR, most=MOST) == 1000 + 1
    )


def test_no_more_fields_are_looked_at_than_there_may_be() -> None:
    endless = b"\x0a\x00" * 10**6

    with pytest.raises(ValueError, match="more fields than any message has"):
        count_fields(endless, Proto.DESCRIPTOR, most=100)
    assert count_fields(endless[:200], Proto.DESCRIPTOR, most=100) == 100


def test_refused_field_is_not_let_through() -> None:
    payload = _pack(RecordDict({"m": MetricRecord({"n": 1})}))
    assert count_fields(payload, Proto.DESCRIPTOR, most=MOST) > 3

    with pytest.raises(ValueError, match="a field that no message has"):
        count_fields(payload, Proto.DESCRIPTOR, most=MOST, refused=METRICS)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\x0a", "cut off"),
        (b"\x0a\x05ab", "cut off"),
        (b"\xff" * 11, "too long"),
        (b"\x7a\x00", "no message has"),
        (b"\x0b", "unknown wire type"),
        (b"\x09\x00", "cut off"),
    ],
)
def test_bytes_that_are_no_message_are_refused(payload: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        count_fields(payload, Proto.DESCRIPTOR, most=MOST)


@given(
    st.dictionaries(st.text(max_size=5), st.one_of(st.integers(-(2**62), 2**62), st.text(), st.binary()), max_size=8)
)
def test_every_record_that_flower_writes_can_be_counted(values: dict[str, Any]) -> None:
    payload = _pack(RecordDict({"c": ConfigRecord(values)}))

    # Item, key, record; each value an item with its key, its value and what is in that.
    assert count_fields(payload, Proto.DESCRIPTOR, most=MOST) <= 3 + 4 * len(values)
    assert count_fields(payload, Proto.DESCRIPTOR, most=MOST) >= 2 + 2 * len(values)


@given(st.binary(max_size=200))
def test_random_bytes_are_counted_or_refused(data: bytes) -> None:
    try:
        assert count_fields(data, Proto.DESCRIPTOR, most=MOST) <= len(data)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - either may happen
