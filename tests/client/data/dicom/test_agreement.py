"""Header and pixels that differ: read right, or refused by the name of what differs."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import (
    MPEG2MPML,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from client.data.dicom import decode_dicom
from client.data.problems import ImageError

WriteDicom = Callable[..., Path]

GRAY = np.arange(40 * 36, dtype=np.uint16).reshape(40, 36) // 8
GRAY8 = GRAY.astype(np.uint8)
COLOUR = np.stack([GRAY8, GRAY8[::-1], GRAY8[:, ::-1]], axis=2)


def _jpeg(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=100, **options)
    return buffer.getvalue()


def _refused(path: Path) -> ImageError:
    with pytest.raises(ImageError) as refused:
        decode_dicom(path)
    return refused.value


def _compressed(write_dicom: WriteDicom, pixels: np.ndarray, syntax: str, **header: object) -> Path:
    """Pixels compressed under their own header, which then is changed."""
    stored = {name: value for name, value in header.items() if name == "BitsStored" and syntax == ""}
    path = write_dicom(pixels, syntax=syntax, **stored)
    dataset = dcmread(path)
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path


def test_decode_dicom_refuses_colour_pixels_under_a_gray_header(write_dicom: WriteDicom) -> None:
    error = _refused(write_dicom(GRAY8, syntax=JPEGBaseline8Bit, stream=_jpeg(COLOUR)))

    assert error.rule == "header-differs"
    assert error.detail.startswith("SamplesPerPixel: expected 1 (MONOCHROME2), got 3 components in the stream.")


def test_decode_dicom_refuses_gray_pixels_under_a_colour_header(write_dicom: WriteDicom) -> None:
    error = _refused(write_dicom(COLOUR, syntax=JPEGBaseline8Bit, stream=_jpeg(GRAY8)))

    assert error.rule == "header-differs"
    assert "got 1 components" in error.detail


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, RLELossless])
@pytest.mark.parametrize("pixels", [GRAY8, COLOUR], ids=["gray", "colour"])
def test_decode_dicom_refuses_another_number_of_samples(
    write_dicom: WriteDicom, syntax: str, pixels: np.ndarray
) -> None:
    other = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    if pixels.ndim == 3:
        other = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}

    assert _refused(_compressed(write_dicom, pixels, syntax, **other)).rule == "header-differs"


@pytest.mark.parametrize("header", [{"Rows": 36, "Columns": 40}, {"Rows": 39}, {"Columns": 37}, {"Rows": 64}])
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGBaseline8Bit])
def test_decode_dicom_refuses_another_size(write_dicom: WriteDicom, header: dict[str, int], syntax: str) -> None:
    stream = {"stream": _jpeg(GRAY8)} if syntax == JPEGBaseline8Bit else {}
    path = write_dicom(GRAY8, syntax=syntax, **stream)
    dataset = dcmread(path)
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)

    error = _refused(path)
    assert error.rule == "header-differs"
    assert error.detail.startswith("Rows x Columns")
    assert "got 40 x 36 in the stream" in error.detail


@pytest.mark.parametrize(
    ("syntax", "native", "header", "what"),
    [
        (JPEG2000Lossless, np.uint8, {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}, "BitsStored"),
        (JPEG2000Lossless, np.uint16, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "BitsStored"),
        (RLELossless, np.uint16, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "RLE segments"),
        (RLELossless, np.uint8, {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}, "RLE segments"),
        ("", np.uint8, {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}, "PixelData"),
        ("", np.uint16, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "multi-frame"),
    ],
)
def test_decode_dicom_refuses_other_bits_than_the_pixels_have(
    write_dicom: WriteDicom, syntax: str, native: type, header: dict[str, int], what: str
) -> None:
    error = _refused(_compressed(write_dicom, GRAY.astype(native) + native(1), syntax or None, **header))  # type: ignore[arg-type]

    assert what in error.detail or what == error.rule


def test_decode_dicom_refuses_values_that_the_stored_bits_cannot_hold(write_dicom: WriteDicom) -> None:
    error = _refused(_compressed(write_dicom, GRAY * 80, JPEG2000Lossless, BitsStored=12, HighBit=11))

    assert error.rule == "header-differs"
    assert error.detail.startswith("BitsStored: expected 12, got values 0 to 14320 in a stream of 16 bits")


@pytest.mark.parametrize("stored", [8, 12])
def test_decode_dicom_reads_a_deeper_stream_whose_values_fit(write_dicom: WriteDicom, stored: int) -> None:
    path = _compressed(write_dicom, GRAY, JPEG2000Lossless, BitsStored=stored, HighBit=stored - 1)

    assert np.array_equal(decode_dicom(path).pixels, np.rint(GRAY * (65535 / 179)))


def test_decode_dicom_refuses_a_sign_that_changes_values(write_dicom: WriteDicom) -> None:
    signed = _compressed(write_dicom, GRAY.astype(np.int16) - 50, JPEG2000Lossless, PixelRepresentation=0)
    unsigned = _compressed(write_dicom, GRAY + np.uint16(33000), JPEG2000Lossless, PixelRepresentation=1)

    for path in (signed, unsigned):
        assert _refused(path).detail.startswith("PixelRepresentation")


def test_decode_dicom_reads_signed_jpeg_2000(write_dicom: WriteDicom) -> None:
    path = write_dicom(GRAY.astype(np.int16) - 50, syntax=JPEG2000Lossless)

    assert np.array_equal(decode_dicom(path).pixels, np.rint(GRAY * (65535 / 179)))


@pytest.mark.parametrize("header", [{}, {"NumberOfFrames": 1}])
@pytest.mark.parametrize("pixels", [GRAY, COLOUR], ids=["gray", "colour"])
def test_decode_dicom_refuses_a_second_native_frame(
    write_dicom: WriteDicom, header: dict[str, int], pixels: np.ndarray
) -> None:
    assert _refused(write_dicom(pixels, PixelData=pixels.tobytes() * 2, **header)).rule == "multi-frame"


@pytest.mark.parametrize("padding", [b"\0\0", b"\1\2" * 30, b"\0" * (40 * 36 * 2 + 10), b"\0" * 50_000])
def test_decode_dicom_ignores_what_stands_behind_the_frame(write_dicom: WriteDicom, padding: bytes) -> None:
    path = write_dicom(GRAY, PixelData=GRAY.tobytes() + padding)

    assert np.array_equal(decode_dicom(path).pixels, np.rint(GRAY * (65535 / 179)))


@pytest.mark.parametrize("lacking", [2, 40 * 36, 40 * 36 * 2])
def test_decode_dicom_refuses_too_few_native_pixels(write_dicom: WriteDicom, lacking: int) -> None:
    error = _refused(write_dicom(GRAY, PixelData=GRAY.tobytes()[:-lacking]))

    assert error.rule == "header-differs"
    assert error.detail.startswith("PixelData: expected 2880 bytes (40 x 36 x 1 samples of 16 bits)")


@pytest.mark.parametrize("header", [{}, {"NumberOfFrames": 1}])
def test_decode_dicom_refuses_a_second_compressed_frame(write_dicom: WriteDicom, header: dict[str, int]) -> None:
    one = _jpeg(GRAY8)
    two_fragments = write_dicom(GRAY8, name="a.dcm", syntax=JPEGBaseline8Bit, stream=[one, one], **header)
    one_fragment = write_dicom(GRAY8, name="b.dcm", syntax=JPEGBaseline8Bit, stream=one + b"\0" + one, **header)

    assert [_refused(path).rule for path in (two_fragments, one_fragment)] == ["multi-frame"] * 2


def test_decode_dicom_joins_the_fragments_of_one_frame(write_dicom: WriteDicom) -> None:
    stream = _jpeg(GRAY8)
    whole = write_dicom(GRAY8, name="whole.dcm", syntax=JPEGBaseline8Bit, stream=stream)
    parts = [stream[:100], stream[100:300], stream[300:]]
    cut = write_dicom(GRAY8, name="cut.dcm", syntax=JPEGBaseline8Bit, stream=parts, NumberOfFrames=1)

    assert np.array_equal(decode_dicom(cut).pixels, decode_dicom(whole).pixels)


@pytest.mark.parametrize(
    ("syntax", "stream", "rule"),
    [
        (JPEG2000Lossless, _jpeg(GRAY8), "header-differs"),
        (JPEGLosslessSV1, _jpeg(GRAY8), "header-differs"),
        (MPEG2MPML, b"\0\0\1\xb3" * 9, "unreadable-image"),
        (JPEGBaseline8Bit, b"no stream" * 9, "unreadable-image"),
        (JPEGBaseline8Bit, _jpeg(GRAY8)[:-200], "unreadable-image"),
        (JPEGBaseline8Bit, b"\0\0", "header-differs"),
    ],
)
def test_decode_dicom_names_the_transfer_syntax_of_a_stream_it_cannot_read(
    write_dicom: WriteDicom, syntax: str, stream: bytes, rule: str
) -> None:
    error = _refused(write_dicom(GRAY8, syntax=syntax, stream=stream))

    assert error.rule == rule
    if stream.strip(b"\0"):
        assert f"({syntax})" in error.detail
    if rule == "unreadable-image":
        assert "gdcmconv --raw" in error.detail


def test_decode_dicom_refuses_a_stream_under_a_native_syntax(write_dicom: WriteDicom) -> None:
    path = write_dicom(GRAY8, syntax=JPEGBaseline8Bit, stream=_jpeg(GRAY8))
    content = path.read_bytes()
    name = JPEGBaseline8Bit.encode()
    path.write_bytes(content.replace(name, ExplicitVRLittleEndian.encode().ljust(len(name), b"\0")))

    assert _refused(path).detail.startswith("TransferSyntaxUID")


@pytest.mark.parametrize(
    ("header", "what"),
    [
        ({"PhotometricInterpretation": "RGB"}, "SamplesPerPixel"),
        ({"PhotometricInterpretation": "CMYK"}, "PhotometricInterpretation"),
        ({"SamplesPerPixel": 3}, "SamplesPerPixel"),
        ({"HighBit": 7}, "bits of a pixel"),
        ({"HighBit": 16}, "bits of a pixel"),
        ({"BitsStored": 17}, "bits of a pixel"),
        ({"BitsAllocated": 12, "BitsStored": 12}, "BitsAllocated"),
        ({"PixelRepresentation": 2}, "PixelRepresentation"),
        ({"Rows": 0}, "Rows"),
        ({"NumberOfFrames": "two"}, "NumberOfFrames"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR IS")
def test_decode_dicom_refuses_a_header_that_contradicts_itself(
    write_dicom: WriteDicom, header: dict[str, object], what: str
) -> None:
    path = write_dicom(GRAY, **{**header, "NumberOfFrames": 1})
    if "NumberOfFrames" in header:
        path.write_bytes(path.read_bytes().replace(b"IS\x02\x001 ", b"IS\x02\x00x "))

    error = _refused(path)
    assert error.rule in ("header-differs", "invalid-attribute")
    assert error.detail.startswith(what)


def test_decode_dicom_refuses_colour_whose_order_is_not_told(write_dicom: WriteDicom) -> None:
    path = write_dicom(COLOUR)
    dataset = dcmread(path)
    del dataset.PlanarConfiguration
    dataset.save_as(path)

    assert _refused(path).detail.startswith("PlanarConfiguration")


def test_decode_dicom_reads_colour_plane_by_plane(write_dicom: WriteDicom) -> None:
    planes = write_dicom(COLOUR, PlanarConfiguration=1, PixelData=COLOUR.transpose(2, 0, 1).tobytes(), name="b.dcm")

    assert np.array_equal(decode_dicom(planes).pixels, decode_dicom(write_dicom(COLOUR)).pixels)


@pytest.mark.parametrize("claimed", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("keep_rgb", [False, True])
def test_decode_dicom_believes_the_stream_about_its_colours(
    write_dicom: WriteDicom, claimed: str, *, keep_rgb: bool
) -> None:
    stream = _jpeg(COLOUR, keep_rgb=keep_rgb)
    path = write_dicom(COLOUR, syntax=JPEGBaseline8Bit, stream=stream, PhotometricInterpretation=claimed)
    right = np.asarray(Image.open(io.BytesIO(stream)).convert("L"), dtype=int)

    assert np.abs(decode_dicom(path).pixels // 257 - right).max() <= 1


@pytest.mark.parametrize(("claimed", "rule"), [("YBR_RCT", "header-differs"), ("YBR_ICT", "header-differs")])
def test_decode_dicom_refuses_a_colour_transform_that_is_not_there(
    write_dicom: WriteDicom, claimed: str, rule: str
) -> None:
    assert _refused(write_dicom(COLOUR, PhotometricInterpretation=claimed)).rule == rule


def test_decode_dicom_refuses_full_colours_called_subsampled(write_dicom: WriteDicom) -> None:
    error = _refused(write_dicom(COLOUR, PhotometricInterpretation="YBR_FULL_422"))

    assert error.detail.startswith("PhotometricInterpretation: expected YBR_FULL_422")
