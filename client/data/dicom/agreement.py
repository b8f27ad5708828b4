"""Compare the header with the pixels it describes: where they differ, nobody can say which of the two is wrong.

Source: DICOM PS3.5 8.1.1, 8.2, annex A.4 (what a stream and the image pixel module must agree on).
"""

import struct

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from client.data.dicom.codestream import JPEG, JPEG_2000, JPEG_LS, Stream
from client.data.dicom.elements import differs
from client.data.dicom.functional_groups import multi_frame
from client.data.dicom.header import PixelHeader

_DCT, _LOSSLESS = frozenset({0, 1, 2}), frozenset({3})
_STREAMS: dict[str, tuple[str, frozenset[int]]] = {
    JPEGBaseline8Bit: (JPEG, _DCT),
    JPEGExtended12Bit: (JPEG, _DCT),
    JPEGLossless: (JPEG, _LOSSLESS),
    JPEGLosslessSV1: (JPEG, _LOSSLESS),
    JPEGLSLossless: (JPEG_LS, frozenset({0xF7 - 0xC0})),
    JPEGLSNearLossless: (JPEG_LS, frozenset({0xF7 - 0xC0})),
    **dict.fromkeys((JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K), (JPEG_2000, frozenset({0}))),
}


def is_stream_syntax(syntax: str) -> bool:
    """True if a transfer syntax is one of those whose streams have a header of their own."""
    return syntax in _STREAMS


def compare_stream(header: PixelHeader, stream: Stream, syntax: str) -> None:
    """Stop where header and stream differ in kind, size, components, bits, sign or number of frames.

    Raises:
        ImageError: names what differs.
    """
    kind, processes = _STREAMS[syntax]
    if stream.kind != kind or stream.process not in processes:
        got = f"a stream of {stream.kind}, process {stream.process}"
        raise differs("TransferSyntaxUID", header=f"{UID(syntax).name} ({syntax})", pixels=got)
    if stream.followed:
        raise multi_frame("a second stream behind the first")
    if (stream.rows, stream.columns) != (header.rows, header.columns):
        got = f"{stream.rows} x {stream.columns} in the stream"
        raise differs("Rows x Columns", header=f"{header.rows} x {header.columns}", pixels=got)
    if len(stream.precisions) != header.samples:
        expected = f"{header.samples} ({header.photometric})"
        raise differs("SamplesPerPixel", header=expected, pixels=f"{len(stream.precisions)} components in the stream")
    if len(set(stream.precisions)) > 1 or len(set(stream.signs)) > 1:
        raise differs("BitsStored", header="one depth and sign", pixels="components that differ")
    if stream.subsampled and kind == JPEG_2000:
        raise differs("components", header="a sample of each at each pixel", pixels="fewer samples in the stream")
    _compare_bits(header, stream)


def _compare_bits(header: PixelHeader, stream: Stream) -> None:
    precision = stream.precisions[0]
    expected, got = f"{header.bits_stored}", f"{precision} bits in the stream"
    # An 8-bit copy under a header of 12 bits has lost the scale that window and rescale need. A stream of 14 bits under
    # a header of 16 has not: its values are the stored ones.
    fewer = precision < header.bits_stored and (precision <= 8) != (header.bits_stored <= 8)
    if precision > header.bits_allocated or fewer or (header.samples == 3 and precision != header.bits_stored):
        raise differs("BitsStored", header=expected, pixels=got)
    if precision > header.bits_stored and precision <= header.high_bit:
        raise differs("HighBit", header=f"{header.high_bit}", pixels=got)
    if any(stream.signs) and header.samples == 3:
        raise differs("PixelRepresentation", header="unsigned", pixels="signed samples in the stream")


def colour_of(header: PixelHeader, stream: Stream | None, syntax: str) -> str:
    """Meaning of three samples, "RGB" or "YBR": where a stream says it, its word counts, else the header's.

    Raises:
        ImageError: the header names a transform that is not there, or another one than the stream.
    """
    photometric = header.photometric
    transformed = stream is not None and stream.kind == JPEG_2000 and stream.colour == "RGB"
    if photometric in ("YBR_RCT", "YBR_ICT") and not transformed:
        raise differs("PhotometricInterpretation", header=photometric, pixels="no colour transform of JPEG 2000")
    if transformed:
        if photometric.startswith("YBR_FULL"):
            raise differs("PhotometricInterpretation", header=photometric, pixels="a colour transform of JPEG 2000")
        return "RGB"
    if stream is not None and stream.colour and syntax in (JPEGBaseline8Bit, JPEGExtended12Bit):
        return stream.colour
    return "RGB" if photometric == "RGB" else "YBR"


def compare_segments(header: PixelHeader, frame: bytes) -> None:
    """Stop where an RLE frame has another number of segments than the header's samples have bytes.

    Source: DICOM PS3.5 annex G.

    Raises:
        ImageError: names the two numbers.
    """
    expected = header.samples * header.bits_allocated // 8
    got = struct.unpack("<I", frame[:4])[0] if len(frame) >= 64 else 0
    if got != expected:
        what = f"{expected} ({header.samples} samples of {header.bits_allocated} bits)"
        raise differs("number of RLE segments", header=what, pixels=f"{got}")


def native_length(header: PixelHeader) -> int:
    """Bytes of a frame that is not compressed."""
    sample = header.bits_allocated // 8
    pixels = header.rows * header.columns
    if header.photometric == "YBR_FULL_422":  # two pixels share a pair of colour samples
        return pixels * 2 * sample
    return pixels * header.samples * sample


def compare_native(header: PixelHeader, value: bytes) -> None:
    """Stop at too few pixels, at a second frame, and at colours that are not sampled as the header says.

    Bytes behind the frame are padding if they are fewer than a frame, or all zero (PS3.5 8.1.1).

    Raises:
        ImageError: names what differs.
    """
    expected = native_length(header)
    shape = f"{header.rows} x {header.columns} x {header.samples} samples of {header.bits_allocated} bits"
    if len(value) < expected:
        raise differs("PixelData", header=f"{expected} bytes ({shape})", pixels=f"{len(value)}")
    full = header.rows * header.columns * 3 * (header.bits_allocated // 8)
    if header.photometric == "YBR_FULL_422" and (header.columns % 2 or len(value) in (full, full + 1)):
        raise differs("PhotometricInterpretation", header="YBR_FULL_422", pixels="colours of every pixel (YBR_FULL)")
    frames = len(value) // expected
    if frames > 1 and any(value[expected:]):
        raise multi_frame(f"pixels of {frames}")
