"""The header of a compressed stream: size, components, precision, sign, colour.

Source: ITU-T T.81 B.2 (JPEG), T.87 C.2 (JPEG-LS), T.800 A.5 and annex I (JPEG 2000, its file format), Adobe TN 5116.
"""

import re
import struct
from dataclasses import dataclass

JPEG, JPEG_LS, JPEG_2000 = "JPEG", "JPEG-LS", "JPEG 2000"
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_NO_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
_JPEG_AGAIN = re.compile(rb"\xff\xd9[\x00\xff]*\xff\xd8\xff")
_J2K_AGAIN = re.compile(rb"\xff\xd9\x00*\xff\x4f\xff\x51")
_JP2 = b"\x00\x00\x00\x0cjP  "
_END = b"\xff\xd9"


@dataclass(frozen=True)
class Stream:
    """The header of one stream.

    Attributes:
        kind: JPEG, JPEG-LS or JPEG 2000.
        process: number of the JPEG frame header, 0 baseline, 1 extended, 3 lossless; of JPEG 2000 0.
        rows: height.
        columns: width.
        precisions: bits of a sample, of each component.
        signs: whether a sample is signed, of each component.
        colour: "RGB", "YBR", or "" where the stream leaves it open; of JPEG 2000 "RGB" where it transformed colours.
        subsampled: whether a component has fewer samples than pixels.
        whole: whether its end is there.
        followed: whether another stream stands behind it.
    """

    kind: str
    process: int
    rows: int
    columns: int
    precisions: tuple[int, ...]
    signs: tuple[bool, ...]
    colour: str
    subsampled: bool
    whole: bool
    followed: bool


def starts_stream(data: bytes) -> bool:
    """True if a fragment begins a frame rather than carrying one on."""
    return data.startswith((b"\xff\xd8\xff", b"\xff\x4f\xff\x51", _JP2))


def read_stream(data: bytes) -> Stream | None:
    """The stream's own header; None if it is none of the three kinds, or damaged."""
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _read_jpeg(data)
        if data.startswith((b"\xff\x4f\xff\x51", _JP2)):
            return _read_j2k(data)
    except (IndexError, struct.error):
        return None
    return None


def _read_jpeg(data: bytes) -> Stream | None:
    frame: tuple[int, int] | None = None  # marker, offset of its segment
    jfif, adobe = False, -1
    offset = 2
    while True:
        while data[offset + 1] == 0xFF:  # fill bytes
            offset += 1
        if data[offset] != 0xFF:
            return None
        marker = data[offset + 1]
        offset += 2
        if marker in _NO_LENGTH:
            continue
        if marker == 0xDA:
            break
        length = _short(data, offset)
        segment = data[offset + 2 : offset + length]
        jfif |= marker == 0xE0 and segment.startswith(b"JFIF")
        if marker == 0xEE and segment.startswith(b"Adobe") and len(segment) >= 12:
            adobe = segment[11]
        if marker in _START_OF_FRAME:
            frame = (marker, offset)
        offset += length
    if frame is None:
        return None
    marker, start = frame
    components = [data[start + 8 + 3 * number : start + 11 + 3 * number] for number in range(data[start + 7])]
    factors = {component[1] for component in components}
    ids = bytes(component[0] for component in components)
    return Stream(
        kind=JPEG_LS if marker == 0xF7 else JPEG,
        process=marker - 0xC0,
        rows=_short(data, start + 3),
        columns=_short(data, start + 5),
        precisions=(data[start + 2],) * len(components),
        signs=(False,) * len(components),
        colour=_jpeg_colour(ids, jfif=jfif, adobe=adobe, subsampled=len(factors) > 1),
        subsampled=len(factors) > 1,
        whole=data.rfind(_END) > offset,
        followed=_JPEG_AGAIN.search(data, offset) is not None,
    )


def _jpeg_colour(ids: bytes, *, jfif: bool, adobe: int, subsampled: bool) -> str:
    """Colours of a stream of three components, by the evidence that libjpeg goes by, in its order."""
    if len(ids) != 3:
        return ""
    if jfif:
        return "YBR"
    if adobe >= 0:
        return "YBR" if adobe else "RGB"
    if ids == b"RGB":
        return "RGB"
    return "YBR" if subsampled else ""


def _read_j2k(data: bytes) -> Stream | None:
    code = _find_codestream(data)
    if not code.startswith(b"\xff\x4f\xff\x51"):
        return None
    right, bottom, left, top = struct.unpack(">4I", code[8:24])
    count = _short(code, 40)
    components = [struct.unpack(">3B", code[42 + 3 * number : 45 + 3 * number]) for number in range(count)]
    offset = 4 + _short(code, 4)
    transformed = False
    while code[offset : offset + 2] not in (b"\xff\x90", b""):  # up to the first tile
        if code[offset : offset + 2] == b"\xff\x52":
            transformed = code[offset + 8] == 1
        offset += 2 + _short(code, offset + 2)
    return Stream(
        kind=JPEG_2000,
        process=0,
        rows=bottom - top,
        columns=right - left,
        precisions=tuple((depth & 0x7F) + 1 for depth, _, _ in components),
        signs=tuple(bool(depth & 0x80) for depth, _, _ in components),
        colour="RGB" if transformed else "",
        subsampled=any((across, down) != (1, 1) for _, across, down in components),
        whole=code.rfind(_END) > offset,
        followed=_J2K_AGAIN.search(code, offset) is not None,
    )


def _find_codestream(data: bytes) -> bytes:
    """The bare stream, without the boxes of a JP2 file around it."""
    if not data.startswith(_JP2):
        return data
    offset = 0
    while offset + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[offset : offset + 8])
        if kind == b"jp2c":
            return data[offset + 8 : offset + length if length else None]
        if length < 8:
            return b""
        offset += length
    return b""


def _short(data: bytes, offset: int) -> int:
    return int(struct.unpack(">H", data[offset : offset + 2])[0])
