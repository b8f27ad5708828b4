"""Rules of DICOM for gray values; right values by hand from the formulas of PS3.3 C.11."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from client.data.dicom import decode_dicom
from client.data.problems import ImageError

WriteDicom = Callable[..., Path]

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
VALUES = np.arange(32 * 24, dtype=np.int64).reshape(32, 24) * 4  # 0..3068


def _lut(entries: np.ndarray, *, first: int, bits: int, big_endian: bool = False) -> Sequence:
    """A LUT whose descriptor is the bits of its three numbers, as US."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 65536, first % 65536, bits])
    item.add_new("LUTData", "OW", entries.astype(">u2" if big_endian else "<u2").tobytes())
    return Sequence([item])


def _stretch(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 65535)


def _refused(path: Path) -> ImageError:
    with pytest.raises(ImageError) as refused:
        decode_dicom(path)
    return refused.value


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("vr", ["US", "SS"])
@pytest.mark.parametrize("signed", [False, True])
def test_decode_dicom_knows_padding_by_its_16_bits(
    write_dicom: WriteDicom, *, syntax: str, vr: str, signed: bool
) -> None:
    filling = -2000 if signed else 65535
    pixels = np.where(np.arange(24) < 6, filling, VALUES).astype(np.int16 if signed else np.uint16)
    path = write_dicom(pixels, native=syntax, PixelPaddingValue=0)
    content = path.read_bytes()
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    tag = struct.pack(f"{order}2H", 0x28, 0x120)
    place = content.index(tag)
    value = struct.pack(f"{order}H", filling % 65536)
    changed = bytearray(content)
    if syntax == ImplicitVRLittleEndian:
        changed[place + 8 : place + 10] = value
    else:
        changed[place + 4 : place + 6] = vr.encode()
        changed[place + 8 : place + 10] = value
    path.write_bytes(bytes(changed))

    seen = VALUES[:, 6:]
    expected = np.where(np.arange(24) < 6, 0, _stretch(VALUES, seen.min(), seen.max()))
    assert np.array_equal(decode_dicom(path).pixels, expected)


@pytest.mark.parametrize(
    ("pixels", "attributes"),
    [
        (np.where(np.arange(24) < 6, -2000, VALUES // 2).astype(np.int16), {"PixelPaddingValue": 2096}),  # of 12 bits
        (np.where(np.arange(24) < 6, 0xFFFF, VALUES).astype(np.uint16), {"PixelPaddingValue": 0xFFFF}),  # beyond them
        (np.where(np.arange(24) < 6, 4000, VALUES).astype(np.uint16), {"PixelPaddingValue": 4000}),
    ],
)
def test_decode_dicom_knows_padding_of_12_bits(
    write_dicom: WriteDicom, pixels: np.ndarray, attributes: dict[str, int]
) -> None:
    image = decode_dicom(write_dicom(pixels, BitsStored=12, native=ImplicitVRLittleEndian, **attributes))

    seen = pixels[:, 6:].astype(int)
    expected = np.where(np.arange(24) < 6, 0, _stretch(pixels.astype(int), seen.min(), seen.max()))
    assert np.array_equal(image.pixels, expected)


def test_decode_dicom_does_not_take_full_white_for_padding_beyond_the_bits(write_dicom: WriteDicom) -> None:
    pixels = np.where(VALUES > 3000, 4095, VALUES).astype(np.uint16)

    image = decode_dicom(write_dicom(pixels, BitsStored=12, PixelPaddingValue=0xFFFF))

    assert np.array_equal(image.pixels, _stretch(pixels.astype(int), 0, 4095))


def test_decode_dicom_blackens_a_range_of_padding_whatever_its_sign(write_dicom: WriteDicom) -> None:
    pixels = np.where(np.arange(24) < 3, -2000, np.where(np.arange(24) < 6, -1990, VALUES)).astype(np.int16)
    path = write_dicom(pixels, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1990, native=ImplicitVRLittleEndian)

    seen = VALUES[:, 6:]
    expected = np.where(np.arange(24) < 6, 0, _stretch(VALUES, seen.min(), seen.max()))
    assert np.array_equal(decode_dicom(path).pixels, expected)


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize(
    ("pixels", "rescale", "count", "first"),
    [
        (VALUES, {"RescaleSlope": 1, "RescaleIntercept": -1024}, 4096, -1024),
        (VALUES, {}, 4096, 0),
        (VALUES * 13 - 20000, {}, 40000, -20000),
        (VALUES * 13 - 20000, {"RescaleSlope": 1, "RescaleIntercept": 0}, 40000, -20000),
        (VALUES * 20, {}, 65536, 0),
        (VALUES * 5 + 40000, {}, 20000, 40000),
        (VALUES * 5 + 40000, {"RescaleSlope": 1, "RescaleIntercept": -1024}, 20000, 38976),
    ],
)
def test_decode_dicom_reads_the_signs_of_a_voi_lut(
    write_dicom: WriteDicom, *, syntax: str, pixels: np.ndarray, rescale: dict[str, int], count: int, first: int
) -> None:
    table = np.rint(np.sqrt(np.arange(count) / (count - 1)) * 65535)
    dtype = np.int16 if pixels.min() < 0 else np.uint16
    lut = _lut(table, first=first, bits=16, big_endian=syntax == ExplicitVRBigEndian)
    path = write_dicom(pixels.astype(dtype), native=syntax, VOILUTSequence=lut, **rescale)

    inputs = pixels + rescale.get("RescaleIntercept", 0)
    assert np.array_equal(decode_dicom(path).pixels, table[np.clip(inputs - first, 0, count - 1)])


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.name)
def test_decode_dicom_takes_what_comes_out_of_a_modality_lut_as_unsigned(write_dicom: WriteDicom, syntax: str) -> None:
    big = syntax == ExplicitVRBigEndian
    modality = _lut(np.arange(4096) * 16, first=-2048, bits=16, big_endian=big)
    voi = np.arange(16384) * 4
    path = write_dicom(
        (VALUES - 2048).astype(np.int16),
        native=syntax,
        ModalityLUTSequence=modality,
        VOILUTSequence=_lut(voi, first=32768, bits=16, big_endian=big),
    )

    shown = voi[np.clip(VALUES * 16 - 32768, 0, 16383)]
    assert np.array_equal(decode_dicom(path).pixels, shown)


@pytest.mark.parametrize(
    ("width", "function", "expected"),
    [
        (1, "LINEAR", [0, 0, 65535, 65535]),  # white above center - 0.5
        (0.5, "LINEAR_EXACT", [0, 32768, 65535, 65535]),
        (400, "LINEAR_EXACT", [0, 16384, 32768, 65535]),
        (400, "SIGMOID", [7812, 17625, 32768, 57723]),
    ],
)
def test_decode_dicom_applies_window_functions(
    write_dicom: WriteDicom, width: float, function: str, expected: list[int]
) -> None:
    center = {1: 200, 0.5: 100}.get(width, 200)
    values = np.array([[0, 100], [200, 400]], dtype=np.uint16)
    path = write_dicom(values, WindowCenter=center, WindowWidth=width, VOILUTFunction=function)

    shown = decode_dicom(path).pixels.ravel()

    if function == "SIGMOID":
        expected = np.rint(65535 / (1 + np.exp(-4 * (values.ravel() - 200.0) / 400))).tolist()
    assert shown.tolist() == expected


@pytest.mark.parametrize(
    ("attributes", "what"),
    [
        ({"WindowCenter": 200, "WindowWidth": 0}, "WindowWidth: expected at least 1 for LINEAR, got 0"),
        ({"WindowCenter": 200, "WindowWidth": 0.5}, "WindowWidth: expected at least 1"),
        ({"WindowCenter": 200, "WindowWidth": -400}, "WindowWidth"),
        ({"WindowCenter": 200, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"}, "WindowWidth: expected more than 0"),
        ({"WindowCenter": 200}, "WindowCenter"),
        ({"WindowCenter": 200, "WindowWidth": 400, "VOILUTFunction": "CUBIC"}, "VOILUTFunction"),
        ({"WindowCenter": 20000, "WindowWidth": 100}, "VOI transform: expected gray values that differ"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "RescaleSlope"),
        ({"PixelSpacing": [1, 5]}, "PixelSpacing: expected a ratio of at most 4 to 1"),
        ({"PixelSpacing": 1}, "PixelSpacing: expected two positive numbers"),
        ({"PixelSpacing": [0, 0]}, "PixelSpacing: expected two positive numbers"),
        ({"PixelAspectRatio": [9, 1]}, "PixelAspectRatio"),
    ],
)
def test_decode_dicom_names_the_attribute_that_breaks_a_rule(
    write_dicom: WriteDicom, attributes: dict[str, object], what: str
) -> None:
    error = _refused(write_dicom(VALUES.astype(np.uint16), **attributes))

    assert error.rule == "invalid-attribute"
    assert error.detail.startswith(what)


@pytest.mark.parametrize(("photometric", "shape"), [("MONOCHROME1", "INVERSE"), ("MONOCHROME2", "IDENTITY")])
def test_decode_dicom_inverts_once_where_two_attributes_say_so(
    write_dicom: WriteDicom, photometric: str, shape: str
) -> None:
    path = write_dicom(VALUES.astype(np.uint16), PhotometricInterpretation=photometric, PresentationLUTShape=shape)

    shown = _stretch(VALUES, 0, 3068)
    expected = np.rint(65535 - VALUES * (65535 / 3068)) if photometric == "MONOCHROME1" else shown
    assert np.array_equal(decode_dicom(path).pixels, expected)


@pytest.mark.parametrize(("photometric", "shape"), [("MONOCHROME2", "INVERSE"), ("MONOCHROME1", "IDENTITY")])
def test_decode_dicom_refuses_two_attributes_that_say_black_and_white(
    write_dicom: WriteDicom, photometric: str, shape: str
) -> None:
    path = write_dicom(VALUES.astype(np.uint16), PhotometricInterpretation=photometric, PresentationLUTShape=shape)

    assert _refused(path).detail.startswith("PresentationLUTShape")


@pytest.mark.parametrize("signed", [False, True])
def test_decode_dicom_shifts_values_that_stand_at_the_top_of_their_cells(
    write_dicom: WriteDicom, *, signed: bool
) -> None:
    values = VALUES - 1534 if signed else VALUES
    cells = ((values << 4) | 7).astype(np.int16 if signed else np.uint16)  # what stands below is not the image's
    path = write_dicom(cells, BitsStored=12, HighBit=15, WindowCenter=500, WindowWidth=1000, VOILUTFunction="SIGMOID")

    expected = np.rint(65535 / (1 + np.exp(-4 * (values - 500) / 1000)))
    assert np.array_equal(decode_dicom(path).pixels, expected)


def test_decode_dicom_ignores_overlay_bits_above_signed_values(write_dicom: WriteDicom) -> None:
    values = VALUES - 1534
    cells = ((values & 0x0FFF) | 0x5000).astype(np.uint16).view(np.int16)

    image = decode_dicom(write_dicom(cells, BitsStored=12))

    assert np.array_equal(image.pixels, _stretch(values, values.min(), values.max()))


@pytest.mark.parametrize(
    ("bits", "largest", "white"),
    [
        (12, 4095, 4095),
        (12, 3000, 4095),  # the table does not reach white, nor does the film
        (8, 4095, 4095),  # entries of more bits than are told
        (16, 4095, 65535),
    ],
)
def test_decode_dicom_shows_a_voi_lut_by_the_bits_of_its_entries(
    write_dicom: WriteDicom, bits: int, largest: int, white: int
) -> None:
    table = np.rint(np.arange(4096) * (largest / 4095))
    path = write_dicom(VALUES.astype(np.uint16), VOILUTSequence=_lut(table, first=0, bits=bits))

    assert np.array_equal(decode_dicom(path).pixels, np.rint(table[VALUES] * (65535 / white)))


@pytest.mark.parametrize("stored", [8, 12, 16])
def test_decode_dicom_scales_colour_by_the_bits_stored(write_dicom: WriteDicom, stored: int) -> None:
    full = (1 << stored) - 1
    gray = np.linspace(0, full, 32 * 24).reshape(32, 24).astype(np.uint16)
    path = write_dicom(np.stack([gray] * 3, axis=2), BitsStored=stored)

    assert np.abs(decode_dicom(path).pixels - gray * (65535 / full)).max() <= 129


def test_decode_dicom_reads_brightness_of_subsampled_colour(write_dicom: WriteDicom) -> None:
    gray = (VALUES // 13).astype(np.uint8)
    coded = np.full((32, 12, 4), 128, dtype=np.uint8)
    coded[..., 0], coded[..., 1] = gray[:, ::2], gray[:, 1::2]
    path = write_dicom(
        np.stack([gray] * 3, axis=2), PhotometricInterpretation="YBR_FULL_422", PixelData=coded.tobytes()
    )

    assert np.array_equal(decode_dicom(path).pixels, gray.astype(int) * 257)
