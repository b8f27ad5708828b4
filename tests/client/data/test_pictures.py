"""Radiographs as PNG and JPEG: read right, or refused by name."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from client.data.images import decode_image, open_image
from client.data.problems import ImageError

GRAY = (np.arange(32 * 24).reshape(32, 24) % 251).astype(np.uint8)
DEEP = np.arange(32 * 24, dtype=np.uint16).reshape(32, 24) * 85


def _save(path: Path, picture: Image.Image, **options: Any) -> Path:
    picture.save(path, **options)
    return path


def _rule(path: Path) -> str:
    with pytest.raises(ImageError) as refused:
        open_image(path)
    return refused.value.rule


@pytest.mark.parametrize("alpha", [0, 128, 254])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_open_image_refuses_pixels_that_are_see_through(tmp_path: Path, mode: str, alpha: int) -> None:
    picture = Image.fromarray(GRAY).convert(mode)
    picture.putpixel((3, 3), (*picture.getpixel((3, 3))[:-1], alpha))  # type: ignore[index]

    assert _rule(_save(tmp_path / "image.png", picture)) == "transparent-image"


def test_open_image_refuses_a_see_through_colour_of_a_palette(tmp_path: Path) -> None:
    picture = Image.fromarray(GRAY).convert("P")

    assert _rule(_save(tmp_path / "image.png", picture, transparency=7)) == "transparent-image"


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_open_image_reads_an_opaque_alpha_channel(tmp_path: Path, mode: str) -> None:
    path = _save(tmp_path / "image.png", Image.fromarray(GRAY).convert(mode))

    assert np.array_equal(open_image(path).pixels, GRAY.astype(int) * 257)


def test_open_image_reads_a_palette_by_its_colours(tmp_path: Path) -> None:
    picture = Image.fromarray(GRAY).convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    path = _save(tmp_path / "image.png", picture)

    assert np.array_equal(open_image(path).pixels, GRAY.astype(int) * 257)


def test_open_image_refuses_printers_colours(tmp_path: Path) -> None:
    picture = Image.fromarray(GRAY).convert("RGB").convert("CMYK")

    assert _rule(_save(tmp_path / "image.jpg", picture)) == "unreadable-image"


def test_open_image_refuses_an_animation(tmp_path: Path) -> None:
    first, second = Image.fromarray(GRAY), Image.fromarray(255 - GRAY)

    assert _rule(_save(tmp_path / "image.png", first, save_all=True, append_images=[second])) == "multi-frame"


def test_open_image_refuses_a_file_of_two_photographs(tmp_path: Path) -> None:
    first, second = Image.fromarray(GRAY), Image.fromarray(255 - GRAY)

    path = _save(tmp_path / "image.mpo", first, save_all=True, append_images=[second])

    assert path.read_bytes().startswith(b"\xff\xd8\xff")
    assert _rule(path) == "multi-frame"


def test_decode_image_keeps_sixteen_bits(tmp_path: Path) -> None:
    assert np.array_equal(decode_image(_save(tmp_path / "image.png", Image.fromarray(DEEP))).pixels, DEEP)


@pytest.mark.parametrize("bits", [10, 12])
def test_open_image_refuses_sixteen_bits_that_hold_fewer(tmp_path: Path, bits: int) -> None:
    path = _save(tmp_path / "image.png", Image.fromarray(DEEP >> (16 - bits)))

    with pytest.raises(ImageError, match=f"as if of {bits} bits") as refused:
        open_image(path)
    assert refused.value.rule == "unscaled-image"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_decode_image_turns_by_each_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} if suffix == "jpg" else {}
    path = _save(tmp_path / f"image.{suffix}", Image.fromarray(GRAY // 9 * 9), exif=exif, **options)
    upright = {
        1: GRAY,
        2: GRAY[:, ::-1],
        3: GRAY[::-1, ::-1],
        4: GRAY[::-1],
        5: GRAY.T,
        6: np.rot90(GRAY, -1),
        7: GRAY[::-1, ::-1].T,
        8: np.rot90(GRAY),
    }

    shown = decode_image(path).pixels // 257

    assert np.abs(shown.astype(int) - upright[orientation] // 9 * 9).max() <= 6


def test_decode_image_reads_a_progressive_jpeg(tmp_path: Path) -> None:
    plain = _save(tmp_path / "plain.jpg", Image.fromarray(GRAY), quality=100)
    progressive = _save(tmp_path / "progressive.jpg", Image.fromarray(GRAY), quality=100, progressive=True)

    assert np.abs(decode_image(plain).pixels.astype(int) - decode_image(progressive).pixels).max() <= 257


@pytest.mark.parametrize(
    ("kind", "name"), [("TIFF", "TIFF"), ("BMP", "BMP"), ("GIF", "GIF"), ("WEBP", "WebP"), ("JPEG2000", "JPEG 2000")]
)
def test_open_image_names_the_format_of_a_disguised_file(tmp_path: Path, kind: str, name: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(GRAY).save(buffer, kind)
    (tmp_path / "image.png").write_bytes(buffer.getvalue())

    with pytest.raises(ImageError, match=f"expected a DICOM, PNG or JPEG file, got {name}"):
        open_image(tmp_path / "image.png")


def test_open_image_names_a_tiff_of_floating_point(tmp_path: Path) -> None:
    Image.fromarray(GRAY.astype(np.float32)).save(tmp_path / "image.png", "TIFF")

    with pytest.raises(ImageError, match="got TIFF"):
        open_image(tmp_path / "image.png")


@pytest.mark.parametrize(("height", "width"), [(3, 3), (15, 200), (200, 15), (1, 1)])
def test_open_image_refuses_an_image_of_a_few_pixels(tmp_path: Path, height: int, width: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(height, width), dtype=np.uint8)

    assert _rule(_save(tmp_path / "image.png", Image.fromarray(noise))) == "image-too-small"


def test_open_image_reads_an_image_of_the_smallest_size(tmp_path: Path) -> None:
    assert open_image(_save(tmp_path / "image.png", Image.fromarray(GRAY[:16, :16]))).pixels.shape == (16, 16)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_open_image_refuses_a_picture_cut_anywhere(tmp_path: Path, suffix: str, mode: str) -> None:
    path = _save(tmp_path / f"image.{suffix}", Image.fromarray(GRAY).convert(mode))
    content, whole = path.read_bytes(), open_image(path)
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        try:
            image = open_image(path)
        except ImageError:
            continue
        assert np.array_equal(image.pixels, whole.pixels)


def test_open_image_ignores_text_in_a_png(tmp_path: Path) -> None:
    text = PngInfo()
    text.add_text("Patient", "Doe^Jane")

    path = _save(tmp_path / "image.png", Image.fromarray(GRAY), pnginfo=text)

    assert np.array_equal(open_image(path).pixels, GRAY.astype(int) * 257)
