"""Pixel data to stored values: native, or through the decoder of its transfer syntax.

Every decoder is told what the stream says of itself; what the header says is applied afterwards, so that a difference
is seen and not decoded away.
"""

import io
import logging
from dataclasses import dataclass
from typing import Any

import gdcm
import numpy as np
from jaxtyping import Integer
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    RLELossless,
)

from client.data.dicom.agreement import (
    colour_of,
    compare_native,
    compare_segments,
    compare_stream,
    is_stream_syntax,
    native_length,
)
from client.data.dicom.codestream import Stream, read_stream, starts_stream
from client.data.dicom.elements import Element, differs
from client.data.dicom.functional_groups import multi_frame
from client.data.dicom.header import PixelHeader
from client.data.dicom.parsing import DicomFile
from client.data.problems import ImageError, fault, quote

_NATIVE = ("", ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
_DCT = (JPEGBaseline8Bit, JPEGExtended12Bit)
_DEEPEST_DCT = 12  # bits, ITU-T T.81 B.2.2
_OVERSHOOT = 16  # a lossy stream may pass the ends of the scale by this part of it

# pydicom logs each decoder that fails, with its traceback; the error raised in the end says which syntax failed.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class StoredValues:
    """Pixels before any gray or colour transform.

    Attributes:
        values: the stored values, signed where the header says so; [row, column] or [row, column, sample].
        cells: the whole cells that hold the values, unsigned, where the bits around the values are known; else None.
        colour: of three samples "RGB" or "YBR"; "" of one.
    """

    values: Integer[np.ndarray, "..."]
    cells: Integer[np.ndarray, "..."] | None
    colour: str = ""


def read_stored_values(file: DicomFile, header: PixelHeader) -> StoredValues:
    """The stored values of the only frame.

    Raises:
        ImageError: header and pixels differ, or the pixels cannot be decoded.
    """
    element = file.data_set.elements["PixelData"]
    try:
        if element.fragments is None:
            return _read_native(file, element, header)
        return _read_compressed(file.syntax, _join_fragments(element.fragments, file.syntax), header)
    except (ImageError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # decoders raise whatever they meet in damaged data; one in Rust not an Exception
        raise _undecodable(file.syntax, f"{type(error).__name__}: {quote(_last_line(error))}") from error


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else "no reason"


def _undecodable(syntax: str, got: str) -> ImageError:
    remedy = (
        "Convert the file with `gdcmconv --raw FILE NEW-FILE` (package GDCM) and use the new one, or export it again"
    )
    expected = f"pixels in the transfer syntax {UID(syntax).name} ({syntax})"
    return ImageError("unreadable-image", fault(expected=expected, got=got, remedy=remedy))


def _read_native(file: DicomFile, element: Element, header: PixelHeader) -> StoredValues:
    if file.syntax not in _NATIVE:
        raise differs("TransferSyntaxUID", header=f"{UID(file.syntax).name} ({file.syntax})", pixels="no fragments")
    if header.photometric in ("YBR_RCT", "YBR_ICT"):
        colour_of(header, None, file.syntax)
    if header.samples == 3 and header.planar is None and header.photometric != "YBR_FULL_422":
        raise differs("PlanarConfiguration", header="0 or 1 for colour", pixels="none")
    compare_native(header, element.value)
    raw = element.value[: native_length(header)]
    if not file.data_set.little_endian and header.bits_allocated == 8 and element.vr == "OW":
        pairs = element.value[: len(raw) + len(raw) % 2]
        raw = np.frombuffer(pairs, dtype="u2").byteswap().tobytes()[: len(raw)]
    cells = np.frombuffer(raw, dtype=f"{file.data_set.order}u{header.bits_allocated // 8}")
    cells = cells.astype(cells.dtype.newbyteorder("="))
    if header.photometric == "YBR_FULL_422":  # Y Y B R stand for two pixels
        twos = cells.reshape(header.rows, -1, 4)[..., [[0, 2, 3], [1, 2, 3]]]
        shaped = twos.reshape(header.rows, header.columns, 3)
    elif header.samples == 3 and header.planar:
        shaped = cells.reshape(3, header.rows, header.columns).transpose(1, 2, 0)
    else:
        shaped = cells.reshape(header.rows, header.columns, header.samples)
    shaped = shaped[..., 0] if header.samples == 1 else shaped
    colour = colour_of(header, None, file.syntax) if header.samples == 3 else ""
    return StoredValues(values=_values_of(shaped, header), cells=shaped, colour=colour)


def _values_of(cells: Integer[np.ndarray, "..."], header: PixelHeader) -> Integer[np.ndarray, "..."]:
    """Values out of whole cells; the bits around them are overlays of old devices, or undefined."""
    wide = np.int64 if header.bits_allocated == 32 else np.int32
    values = np.right_shift(cells.astype(wide), header.shift) & ((1 << header.bits_stored) - 1)
    return _with_sign(values, header.bits_stored) if header.signed else values


def _with_sign(values: Integer[np.ndarray, "..."], bits: int) -> Integer[np.ndarray, "..."]:
    """Patterns of so many bits as two's complement."""
    return np.asarray(values - ((values >> (bits - 1)) << bits))


def _join_fragments(fragments: tuple[bytes, ...], syntax: str) -> bytes:
    """The only frame; every fragment of RLE, and each one that begins a stream, begins a frame."""
    filled = tuple(fragment for fragment in fragments if fragment.strip(b"\0"))
    frames = len(filled) if syntax == RLELossless else sum(starts_stream(fragment) for fragment in filled)
    if frames > 1:
        raise multi_frame(f"pixels of {frames}")
    if not filled:
        raise differs("PixelData", header="a frame", pixels="no fragment with content")
    return b"".join(filled)


def _read_compressed(syntax: str, frame: bytes, header: PixelHeader) -> StoredValues:
    if syntax == RLELossless:
        compare_segments(header, frame)
        cells = _decode(syntax, frame, header, bits=header.bits_allocated)
        cells = cells.view(f"u{cells.dtype.itemsize}")
        colour = colour_of(header, None, syntax) if header.samples == 3 else ""
        return StoredValues(values=_values_of(cells, header), cells=cells, colour=colour)
    if not is_stream_syntax(syntax):
        what = f"{UID(syntax).name} ({syntax})" if syntax else "none"
        if syntax in _NATIVE:
            raise differs("TransferSyntaxUID", header=what, pixels="compressed fragments")
        raise _undecodable(syntax, "a syntax without a decoder here")
    stream = read_stream(frame)
    if stream is None:
        raise _undecodable(syntax, "a stream without a header of JPEG, JPEG-LS or JPEG 2000")
    compare_stream(header, stream, syntax)
    if not stream.whole:
        raise _undecodable(syntax, "a stream that ends too early")
    bits = stream.precisions[0]
    if syntax in _DCT and bits == 8:
        values = _decode_baseline(frame, colour=stream.colour)
    elif syntax in _DCT and (header.samples == 3 or header.bits_stored > _DEEPEST_DCT):
        raise _undecodable(syntax, f"{header.samples} samples of {bits} bits, which no decoder here reads")
    elif syntax in _DCT:
        values = _decode_extended(frame, header)
    else:
        values = _decode(syntax, frame, header, bits=bits, signed=stream.signs[0])
    colour = colour_of(header, stream, syntax) if header.samples == 3 else ""
    return StoredValues(values=_fit(values.astype(np.int32), stream, header), cells=None, colour=colour)


def _fit(values: Integer[np.ndarray, "..."], stream: Stream, header: PixelHeader) -> Integer[np.ndarray, "..."]:
    """Values of the stream as those of the header.

    Raises:
        ImageError: bits or sign differ, and the values show that it matters.
    """
    bits = stream.precisions[0]
    whole_cells = bits > header.bits_stored
    if stream.signs[0] != header.signed:
        if header.signed and stream.kind != "JPEG 2000" and bits >= header.bits_stored:
            values = _with_sign(values, bits)  # JPEG and JPEG-LS know no sign: two's complement is how it is written
        elif values.min() < 0 or (header.signed and values.max() >> (bits - 1)):
            signs = ("unsigned", "signed")
            got = f"{signs[stream.signs[0]]} samples of {bits} bits in the stream"
            raise differs("PixelRepresentation", header=signs[header.signed], pixels=got)
    if whole_cells:
        values = values >> header.shift
        low, high = header.limits
        beyond = ((high - low + 1) // _OVERSHOOT) if header.shift == 0 else 0
        if values.min() < low - beyond or values.max() > high + beyond:
            got = f"values {values.min()} to {values.max()} in a stream of {bits} bits"
            raise differs("BitsStored", header=f"{header.bits_stored}", pixels=got)
    return values


def _decode(
    syntax: str, frame: bytes, header: PixelHeader, *, bits: int, signed: bool = False
) -> Integer[np.ndarray, "..."]:
    """A frame by pydicom's decoders, with the stream's own bits and sign, and no change of colours."""
    options: Any = {
        "rows": header.rows,
        "columns": header.columns,
        "number_of_frames": 1,
        "samples_per_pixel": header.samples,
        "photometric_interpretation": "MONOCHROME2" if header.samples == 1 else "RGB",
        "planar_configuration": 0,
        "bits_allocated": 8 if bits <= 8 else 16 if bits <= 16 else 32,
        "bits_stored": bits,
        "pixel_representation": int(signed),
        "pixel_keyword": "PixelData",
    }
    values, _ = get_decoder(UID(syntax)).as_array(encapsulate([frame]), index=0, raw=True, **options)
    return values


def _decode_baseline(frame: bytes, *, colour: str) -> Integer[np.ndarray, "..."]:
    """A JPEG of 8 bits by libjpeg, its components as they are coded: what is not known to be RGB, it takes for YBR."""
    with Image.open(io.BytesIO(frame), formats=("JPEG",)) as picture:
        if picture.mode == "RGB" and colour != "RGB":
            picture.draft("YCbCr", picture.size)
        return np.asarray(picture)


def _decode_extended(frame: bytes, header: PixelHeader) -> Integer[np.ndarray, "..."]:
    """A JPEG of 12 bits by GDCM, which pydicom does not ask for it; those that GDCM wrote itself say 16."""
    fragments = gdcm.SequenceOfFragments.New()
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((header.columns, header.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.MONOCHROME2
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, _DEEPEST_DCT, _DEEPEST_DCT - 1, 0))
    buffer: Any = image.GetBuffer()
    decoded = np.frombuffer(buffer.encode("utf-8", "surrogateescape"), dtype="<u2")
    return decoded.reshape(header.rows, header.columns)
