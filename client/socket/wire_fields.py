"""Bytes of a protobuf message, looked through before protobuf reads them: of few bytes it can make objects of many.

Source: protobuf.dev, "Encoding".
"""

from google.protobuf.descriptor import Descriptor, FieldDescriptor

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT = 10
_MAX_DEPTH = 10
_TEXT = frozenset({FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING})


def count_fields(
    payload: bytes | bytearray, message: Descriptor, *, most: int, refused: frozenset[str] = frozenset()
) -> int:
    """Fields in a message and in all messages within it; a packed list counts by its bytes.

    Args:
        payload: the message; its bytes and strings are passed over and not copied.
        message: its type.
        most: fields that there may be; no more are looked at.
        refused: full names of fields that must not be there.

    Raises:
        ValueError: the bytes are no such message, or have a refused field, or too many.
    """
    return _count(memoryview(payload), message, refused, left=most, depth=0)


def _count(view: memoryview, message: Descriptor, refused: frozenset[str], *, left: int, depth: int) -> int:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    at, total = 0, 0
    while at < len(view):
        key, at = _read_varint(view, at)
        field = message.fields_by_number.get(key >> 3)
        if field is None or field.full_name in refused:
            raise ValueError("a field that no message has")
        total += 1
        kind = key & 7
        if kind == _VARINT:
            _, at = _read_varint(view, at)
        elif kind == _LENGTH:
            length, at = _read_varint(view, at)
            if length > len(view) - at:
                raise ValueError("cut off")
            total += _count_within(view[at : at + length], field, refused, left=left - total, depth=depth)
            at += length
        elif kind in _FIXED_BYTES:
            at += _FIXED_BYTES[kind]
        else:
            raise ValueError("an unknown wire type")
        if total > left:
            raise ValueError("more fields than any message has")
    if at > len(view):
        raise ValueError("cut off")
    return total


def _count_within(view: memoryview, field: FieldDescriptor, refused: frozenset[str], *, left: int, depth: int) -> int:
    if field.message_type is not None:
        return _count(view, field.message_type, refused, left=left, depth=depth + 1)
    return 0 if field.type in _TEXT else len(view)


def _read_varint(view: memoryview, at: int) -> tuple[int, int]:
    """A number and the place behind it."""
    value = 0
    for shift, byte in enumerate(view[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, at + shift + 1
    raise ValueError("cut off, or a number that is too long")
