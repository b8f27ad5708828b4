"""Decode a radiograph saved as PNG or JPEG; what a picture program can do to one and a device does not is refused."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt16
from PIL import Image, ImageOps

from client.data.gray_image import WHITE, refuse_large, too_large
from client.data.problems import ImageError, fault

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_OTHER_FORMATS = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"%PDF": "PDF",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "gzip",
    b"8BPS": "Photoshop",
}
_DARKEST_WHITE = 4096  # 16 bits that hold 12 only, without saying so


def looks_like_picture(start: bytes) -> bool:
    """True if a file's first bytes are those of PNG or JPEG."""
    return start.startswith((_PNG, _JPEG))


def name_format(start: bytes) -> str:
    """The format that a file's first bytes tell, for a message."""
    if not start:
        return "an empty file"
    return next((name for magic, name in _OTHER_FORMATS.items() if start.startswith(magic)), "other content")


def decode_picture(path: Path) -> UInt16[np.ndarray, "height width"]:
    """The gray values of a PNG or JPEG file, turned as its EXIF tag says; of 8 bits times 257.

    Colour of more than 8 bits a sample is rounded down to 8.

    Raises:
        ImageError: too large, several pictures, see-through pixels, printer's colours, or 12 bits in a file of 16.
        Exception: whatever Pillow raises for damaged data.
    """
    try:
        opened = Image.open(path, formats=("PNG", "JPEG"))
    except Image.DecompressionBombError as error:  # Pillow does not tell the size
        raise too_large("far more") from error
    with opened:
        refuse_large(*opened.size)
        frames = getattr(opened, "n_frames", 1)
        if frames > 1:
            detail = fault(expected="one picture", got=f"{frames} in the file", remedy="Save the radiograph alone")
            raise ImageError("multi-frame", detail)
        if opened.mode in ("CMYK", "YCCK"):
            detail = fault(expected="gray or RGB", got="inks of a printer (CMYK)", remedy="Save it in gray")
            raise ImageError("unreadable-image", detail)
        picture = ImageOps.exif_transpose(opened)
    if picture.mode.startswith("I"):  # 16-bit PNG
        return _deep_gray(picture)
    _refuse_transparent(picture)
    return np.asarray(picture.convert("L"), dtype=np.uint16) * 257


def _deep_gray(picture: Image.Image) -> UInt16[np.ndarray, "height width"]:
    values = np.asarray(picture)
    if picture.info.get("transparency") is not None and (values == picture.info["transparency"]).any():
        raise _transparent()
    gray: UInt16[np.ndarray, "height width"] = np.clip(values, 0, WHITE).astype(np.uint16)
    if 0 < gray.max() < _DARKEST_WHITE and gray.min() != gray.max():
        detail = fault(
            expected="gray values up to 65535 in a PNG of 16 bits",
            got=f"up to {gray.max()}, as if of {int(gray.max()).bit_length()} bits",
            remedy="Export it as DICOM, or stretched over the 16 bits",
        )
        raise ImageError("unscaled-image", detail)
    return gray


def _refuse_transparent(picture: Image.Image) -> None:
    if picture.has_transparency_data and np.asarray(picture.convert("RGBA").getchannel("A")).min() < 255:
        raise _transparent()


def _transparent() -> ImageError:
    remedy = "Save it without transparency"
    return ImageError("transparent-image", fault(expected="opaque pixels", got="see-through ones", remedy=remedy))
