import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import JPEG2000Lossless

from client.data.gray_image import GrayImage
from client.data.images import decode_image, letterbox, read_image
from client.data.problems import ImageError

WriteDicom = Callable[..., Path]

CHEST = Path(__file__).resolve().parents[3] / "../shared/data/images/chest_xray_hannover/images"
NOISE = np.random.default_rng(0).integers(0, 256, size=(24, 20, 3), dtype=np.uint8)


@pytest.mark.skipif(not CHEST.is_dir(), reason="the real chest radiographs (../shared/data) are not here")
def test_decode_image_equals_pillow_on_a_real_jpeg() -> None:
    path = min(CHEST.glob("*.jpg"))
    with Image.open(path) as picture:
        expected = np.asarray(picture.convert("L"), dtype=np.uint16) * 257

    assert np.array_equal(decode_image(path).pixels, expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
def test_decode_image_equals_pillow_on_png(tmp_path: Path, mode: str) -> None:
    Image.fromarray(NOISE).convert(mode).save(tmp_path / "image.png")
    with Image.open(tmp_path / "image.png") as picture:
        expected = np.asarray(picture.convert("L"), dtype=np.uint16) * 257

    assert np.array_equal(decode_image(tmp_path / "image.png").pixels, expected)


def test_decode_image_keeps_the_values_of_a_16_bit_png(tmp_path: Path) -> None:
    values = np.array([[0, 1], [40000, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")

    assert decode_image(tmp_path / "deep.png").pixels.tolist() == values.tolist()


def test_decode_image_turns_as_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    values = np.array([[0, 80], [160, 240]], dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    Image.fromarray(values).save(tmp_path / "turned.jpg", exif=exif, quality=100)

    shown = decode_image(tmp_path / "turned.jpg").pixels[4::8, 4::8] // 257

    assert np.abs(shown.astype(int) - [[160, 0], [240, 80]]).max() <= 2


def test_decode_image_knows_the_format_by_content(tmp_path: Path, write_dicom: WriteDicom) -> None:
    dicom = write_dicom(np.array([[0, 5]], np.uint8), name="dicom.png")
    Image.fromarray(NOISE).save(tmp_path / "png.dcm", format="PNG")

    assert decode_image(dicom).pixels.tolist() == [[0, 65535]]
    assert decode_image(tmp_path / "png.dcm").pixels.shape == (24, 20)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_read_image_refuses_a_truncated_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(NOISE).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(ImageError, match="Export the image again") as refused:
        read_image(path, size=16)
    assert refused.value.rule == "unreadable-image"


@pytest.mark.parametrize("syntax", [None, JPEG2000Lossless])
def test_read_image_refuses_a_truncated_dicom(write_dicom: WriteDicom, syntax: str | None) -> None:
    values = np.random.default_rng(0).integers(0, 65536, size=(64, 64), dtype=np.uint16)
    path = write_dicom(values, syntax=syntax)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(ImageError) as refused:
        read_image(path, size=16)
    assert refused.value.rule == "unreadable-image"


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"PK\x03\x04", b"\xff\xd8\xff", b"\0" * 128 + b"DICM"])
def test_read_image_refuses_other_content(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "image.png").write_bytes(content)

    with pytest.raises(ImageError) as refused:
        read_image(tmp_path / "image.png", size=16)
    assert refused.value.rule == "unreadable-image"


@given(st.binary(max_size=400))
def test_read_image_raises_nothing_but_image_errors_on_damaged_headers(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    for start in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\0" * 128 + b"DICM"):
        path.write_bytes(start + tail)
        with pytest.raises(ImageError):
            read_image(path, size=16)


@pytest.mark.parametrize("gray", [0, 128, 255])
def test_read_image_refuses_a_blank_picture(tmp_path: Path, gray: int) -> None:
    Image.fromarray(np.full((16, 16), gray, dtype=np.uint8)).save(tmp_path / "blank.png")

    assert not decode_image(tmp_path / "blank.png").pixels.any()
    with pytest.raises(ImageError) as refused:
        read_image(tmp_path / "blank.png", size=16)
    assert refused.value.rule == "blank-image"


def test_letterbox_centres_a_tall_image_on_black() -> None:
    image = GrayImage(pixels=np.full((8, 4), 500, dtype=np.uint16))

    expected = np.zeros((8, 8), dtype=np.uint16)
    expected[:, 2:6] = 500
    assert np.array_equal(letterbox(image, size=8), expected)


def test_letterbox_centres_a_wide_image_on_black() -> None:
    square = letterbox(GrayImage(pixels=np.full((10, 40), 65535, dtype=np.uint16)), size=16)

    assert (square[6:10] == 65535).all()
    assert not square[:6].any()
    assert not square[10:].any()


def test_letterbox_corrects_pixels_that_are_not_square() -> None:
    square = letterbox(GrayImage(pixels=np.full((4, 8), 9, dtype=np.uint16), pixel_aspect=2.0), size=8)

    assert (square == 9).all()


def test_letterbox_does_not_alias_fine_stripes() -> None:
    stripes = np.tile(np.array([0, 65535], dtype=np.uint16), (512, 256))

    inner = letterbox(GrayImage(pixels=stripes), size=32)[2:-2, 2:-2]

    assert np.abs(inner.astype(float) - 32767.5).max() < 0.02 * 65535


def test_letterbox_keeps_an_image_of_its_own_size() -> None:
    values = np.random.default_rng(0).integers(0, 65536, size=(16, 16), dtype=np.uint16)

    assert np.array_equal(letterbox(GrayImage(pixels=values), size=16), values)


@given(height=st.integers(1, 200), width=st.integers(1, 200), aspect=st.floats(0.2, 5.0), size=st.integers(16, 64))
def test_letterbox_fills_one_side_and_keeps_the_proportions(height: int, width: int, aspect: float, size: int) -> None:
    image = GrayImage(pixels=np.full((height, width), 1000, dtype=np.uint16), pixel_aspect=aspect)

    square = letterbox(image, size=size)

    rows, columns = np.flatnonzero(square.any(axis=1)), np.flatnonzero(square.any(axis=0))
    assert square.shape == (size, size)
    assert max(len(rows), len(columns)) == size
    scale = size / max(height * aspect, width)
    assert abs(len(rows) - max(1, height * aspect * scale)) <= 0.5 + 1e-9
    assert abs(len(columns) - max(1, width * scale)) <= 0.5 + 1e-9
    assert abs(rows[0] - (size - 1 - rows[-1])) <= 1


@pytest.mark.parametrize(("side", "got"), [(12_000, "12000 x 12000"), (20_000, "far more")])
def test_read_image_says_the_limit_when_a_picture_is_too_large(tmp_path: Path, side: int, got: str) -> None:
    # the header alone decides: the pixels are not there
    chunks = {b"IHDR": struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0), b"IDAT": b""}
    content = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as the reader of the images table does
        with pytest.raises(ImageError) as refused:
            read_image(tmp_path / "huge.png", size=48)

    assert refused.value.rule == "image-too-large"
    assert refused.value.detail == f"expected at most 100,000,000 pixels, got {got}. Check the file."
