"""Whatever stands in a file: an image, or the name of a broken rule."""

import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from client.data.gray_image import GrayImage
from client.data.images import decode_image
from client.data.problems import ImageError

WriteDicom = Callable[..., Path]
PIXELS = (np.arange(40 * 36).reshape(40, 36) * 37 % 4096).astype(np.uint16)
SHORTS = ("Rows", "Columns", "SamplesPerPixel", "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit")
SIGNED = ("PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit")
WINDOW = ("WindowCenter", "WindowWidth", "VOILUTFunction", "RescaleSlope", "RescaleIntercept", "PresentationLUTShape")
TEXTS = (*WINDOW, "PhotometricInterpretation", "NumberOfFrames", "PixelSpacing", "PatientOrientation", "Modality")
WORDS = st.sampled_from(
    [
        "",
        "0",
        "1",
        "2",
        "-1",
        "1.5",
        "1e400",
        "nan",
        "x",
        "1\\2",
        "1\\2\\3",
        "MONOCHROME1",
        "RGB",
        "YBR_FULL_422",
        "L\\F",
    ]
)


def _open(path: Path) -> GrayImage | None:
    """The image, or None if it is refused; any other exception is a fault of the reader."""
    with warnings.catch_warnings():  # as the reader of the images table does
        warnings.simplefilter("ignore")
        with suppress(ImageError):
            return decode_image(path)
    return None


@pytest.fixture(
    params=[
        {"native": ImplicitVRLittleEndian},
        {"native": ExplicitVRBigEndian},
        {"native": ExplicitVRLittleEndian, "BitsStored": 12},
        {"syntax": JPEG2000Lossless},
        {"syntax": RLELossless},
    ],
    ids=["implicit", "big endian", "explicit", "JPEG 2000", "RLE"],
)
def valid(request: pytest.FixtureRequest, write_dicom: WriteDicom) -> Path:
    """One valid radiograph."""
    return write_dicom(PIXELS, **request.param)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_decode_image_survives_any_header(valid: Path, data: st.DataObject) -> None:
    content = valid.read_bytes()
    changed = valid.with_name("changed.dcm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(valid)
        for keyword in data.draw(
            st.lists(st.sampled_from(SHORTS + SIGNED + TEXTS), min_size=1, max_size=4, unique=True)
        ):
            if keyword in SHORTS + SIGNED:
                value = data.draw(st.integers(0, 65535) | st.integers(0, 40))
                dataset.add_new(keyword, "US", value)
            else:
                dataset.add_new(keyword, "LO", data.draw(WORDS))
        dataset.save_as(changed)
    _open(changed)
    assert valid.read_bytes() == content


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_decode_image_survives_any_bytes_in_the_header(valid: Path, data: st.DataObject) -> None:
    content = bytearray(valid.read_bytes())
    pixels = content.find(b"\xe0\x7f\x10\x00")
    end = pixels + 12 if pixels > 0 else len(content)
    for place in data.draw(st.lists(st.integers(132, end), min_size=1, max_size=8)):
        content[min(place, len(content) - 1)] = data.draw(st.integers(0, 255))
    changed = valid.with_name("changed.dcm")
    changed.write_bytes(content)
    _open(changed)


def test_decode_image_refuses_a_file_cut_anywhere(valid: Path) -> None:
    content = valid.read_bytes()
    whole = _open(valid)
    assert whole is not None
    cut = valid.with_name("cut.dcm")
    for length in range(0, len(content) - 1, 41):
        cut.write_bytes(content[:length])
        image = _open(cut)
        assert image is None or np.array_equal(image.pixels, whole.pixels)
