"""Decode a radiograph file, whatever its format, and fit it into the square that the model takes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt16
from PIL import Image

from client.data.gray_image import WHITE, FittedImage, GrayImage, refuse_small
from client.data.pictures import decode_picture, looks_like_picture, name_format
from client.data.problems import ImageError, fault, quote


def read_image(path: Path, *, size: int) -> FittedImage:
    """A radiograph as `size` x `size` gray values.

    Raises:
        ImageError: the file cannot be read or decoded, is blank or tiny, or may not be used.
    """
    image = open_image(path)
    return FittedImage(pixels=letterbox(image, size=size), is_unnamed=image.is_unnamed)


def open_image(path: Path) -> GrayImage:
    """The whole radiograph, as `decode_image` gives it.

    Raises:
        ImageError: the file cannot be read or decoded, is blank or tiny, or may not be used.
    """
    try:
        image = decode_image(path)
    except ImageError:
        raise
    except Exception as error:  # decoders raise whatever they meet in damaged data
        reason = str(error).strip().splitlines()
        got = f"{type(error).__name__}: {quote(reason[0])}" if reason else type(error).__name__
        detail = fault(expected="a whole DICOM, PNG or JPEG file", got=got, remedy="Export the image again")
        raise ImageError("unreadable-image", detail) from error
    height, width = image.pixels.shape
    refuse_small(width, height)
    if not image.pixels.any():
        detail = fault(expected="a radiograph", got="one gray value everywhere", remedy="Export the image again")
        raise ImageError("blank-image", detail)
    return image


def decode_image(path: Path) -> GrayImage:
    """The whole radiograph, before resizing, in standard orientation; a constant image is all zero.

    PNG and JPEG keep their gray scale (8 bit times 257), turned as their EXIF tag says. The format is told by the
    file's first bytes, not by its name.

    Raises:
        ImageError: neither DICOM, PNG nor JPEG, or an image that may not be used.
        Exception: whatever a decoder raises for damaged data.
    """
    from client.data.dicom import decode_dicom, looks_like_dicom  # noqa: PLC0415 - pydicom, which tables do without

    with path.open("rb") as file:
        start = file.read(132)
    if looks_like_picture(start):
        image = GrayImage(pixels=decode_picture(path))
    elif looks_like_dicom(start):
        image = decode_dicom(path)
    else:
        remedy = "Export the image as one of these"
        detail = fault(expected="a DICOM, PNG or JPEG file", got=name_format(start), remedy=remedy)
        raise ImageError("unreadable-image", detail)
    if image.pixels.min() == image.pixels.max():
        return replace(image, pixels=np.zeros_like(image.pixels))
    return image


def letterbox(image: GrayImage, *, size: int, enlarge: int = 1) -> UInt16[np.ndarray, "side side"]:
    """The image in a square: proportions kept (pixels that are not square corrected), centred on black, antialiased.

    Args:
        image: a decoded radiograph.
        size: side of the square in pixels.
        enlarge: how many pixels stand, each way, in the place of one. The image takes the very part of the square
            that it takes without, so that what belongs to a pixel of the one belongs to the same place of the other.
    """
    height, width = image.pixels.shape
    scale = size / max(height * image.pixel_aspect, width)
    new_height = min(size, max(1, round(height * image.pixel_aspect * scale))) * enlarge
    new_width = min(size, max(1, round(width * scale))) * enlarge
    picture = Image.fromarray(image.pixels.astype(np.float32))
    # Boxes bring the image near its size, then a triangle filter: as smooth as the filter alone, several times faster.
    resized = picture.resize((new_width, new_height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    square = np.zeros((size * enlarge, size * enlarge), dtype=np.uint16)
    # Of the smaller square: an odd margin is not halved anew.
    top, left = (size - new_height // enlarge) // 2 * enlarge, (size - new_width // enlarge) // 2 * enlarge
    square[top : top + new_height, left : left + new_width] = np.clip(np.rint(np.asarray(resized)), 0, WHITE)
    return square
