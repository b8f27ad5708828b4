"""Frames on the socket between a hospital's courier and its worker; this module opens no socket.

A frame is a head of fixed length (magic, version, length of the kind, length of the payload), the kind in ASCII, and
the payload: a RecordDict in Flower's own protobuf. Lengths are checked before anything of that length is read, and the
numbers of records, arrays and fields before protobuf or Python make objects of them. Nothing is pickled.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto

from client.socket.wire_fields import count_fields
from shared_model.errors import ProtocolError

MAGIC, VERSION = b"HPFD", 1
HEAD = struct.Struct(">4sBBQ")
REPLY = "reply"
DEFAULT_MAX_BYTES = 2**30

_KIND = re.compile(rb"[a-z][a-z.-]{0,63}")
_CHUNK_BYTES = 2**20
_MAX_RECORDS, _MAX_ITEMS = 16, 20_000
_MAX_FIELDS = 20 * _MAX_ITEMS
_REFUSED = frozenset({"flwr.proto.RecordDict.Item.metric_record"})  # no message has metrics

Receive = Callable[[int], bytes]


class FrameError(ProtocolError):
    """Bytes are not a frame that this version allows."""


class CutOffError(FrameError):
    """The other side closed the connection inside a frame, or before it."""


@dataclass(frozen=True)
class SocketFrame:
    """One message on the socket.

    Attributes:
        kind: message kind of a question, or `REPLY`.
        payload: a record as `pack_record` wrote it; still unread, so anything.
    """

    kind: str
    payload: bytes | bytearray


def pack_head(kind: str, n_bytes: int) -> bytes:
    """What goes before a payload of so many bytes: head and kind.

    Raises:
        FrameError: no frame has such a kind.
    """
    text = kind.encode(errors="replace")
    if not _KIND.fullmatch(text):
        raise FrameError(f"kind of a frame: expected 1 to 64 lower-case letters, dots and hyphens, got {kind[:40]!r}.")
    return HEAD.pack(MAGIC, VERSION, len(text), n_bytes) + text


def read_frame(receive: Receive, *, max_bytes: int = DEFAULT_MAX_BYTES) -> SocketFrame:
    """The next frame of a stream.

    Args:
        receive: gives at least one and at most so many bytes as asked; none at the end of the stream.
        max_bytes: longest payload.

    Raises:
        CutOffError: the stream ended first.
        FrameError: another magic, version or kind, or a payload that is too long.
    """
    magic, version, kind_length, n_bytes = HEAD.unpack(_read(receive, HEAD.size))
    if magic != MAGIC:
        raise FrameError("frame: expected a frame of hipfed, got other bytes.")
    if version != VERSION:
        raise FrameError(
            f"frame: expected version {VERSION}, got {version}. Use the same version of hipfed in courier and worker."
        )
    if n_bytes > max_bytes:
        raise FrameError(f"frame: expected a payload of at most {max_bytes} bytes, got one of {n_bytes}.")
    kind = _read(receive, kind_length)
    if not _KIND.fullmatch(kind):
        raise FrameError("frame: expected a kind of 1 to 64 lower-case letters, dots and hyphens, got another.")
    return SocketFrame(kind.decode("ascii"), _read(receive, n_bytes))


def _read(receive: Receive, n_bytes: int) -> bytearray:
    """Exactly so many bytes; memory grows with what comes, not with what was announced."""
    data = bytearray()
    while len(data) < n_bytes:
        chunk = receive(min(_CHUNK_BYTES, n_bytes - len(data)))
        if not chunk:
            raise CutOffError(f"frame: expected {n_bytes} more bytes, got {len(data)} before the end.")
        data += chunk
    return data


def pack_record(record: RecordDict) -> bytes:
    """A record as a payload."""
    payload: bytes = recorddict_to_proto(record).SerializeToString()
    return payload


def parse_record(payload: bytes | bytearray) -> RecordDict:
    """The record of a payload.

    Raises:
        FrameError: the bytes are no record, or hold more records or arrays than any message has.
    """
    proto = RecordDictProto()
    try:
        count_fields(payload, RecordDictProto.DESCRIPTOR, most=_MAX_FIELDS, refused=_REFUSED)
        proto.ParseFromString(payload)
        _check_counts(proto)
        return recorddict_from_proto(proto)
    except FrameError:
        raise
    except Exception as error:  # protobuf's own error, and what Flower's records make of strange values
        raise FrameError(f"frame: expected a record of Flower as payload, got {type(error).__name__}.") from error


def _check_counts(proto: RecordDictProto) -> None:
    n_records = len(proto.items)
    if n_records > _MAX_RECORDS:
        raise FrameError(f"frame: expected at most {_MAX_RECORDS} records, got {n_records}.")
    parts = (item.array_record if item.HasField("array_record") else item.config_record for item in proto.items)
    n_items = sum(len(part.items) for part in parts)
    if n_items > _MAX_ITEMS:
        raise FrameError(f"frame: expected at most {_MAX_ITEMS} arrays and values, got {n_items}.")
