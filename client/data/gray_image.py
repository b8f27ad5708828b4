"""A decoded radiograph, whatever its file's format."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt16

from client.data.problems import ImageError, fault

WHITE = 65535
LARGEST_PIXELS = 100_000_000  # a radiograph has 10 to 30 million; more is a damaged or hostile header
SMALLEST_SIDE = 16  # pixels; fewer is an icon or a damaged header, and would be blown up to what the model takes


@dataclass(frozen=True)
class GrayImage:
    """A radiograph before resizing.

    Attributes:
        pixels: gray values 0..65535, 0 = black, 65535 = white.
        pixel_aspect: height of a pixel over its width.
        is_unnamed: whether the file says of itself that it is no special kind of image, where it could say X-ray.
    """

    pixels: UInt16[np.ndarray, "height width"]
    pixel_aspect: float = 1.0
    is_unnamed: bool = False


@dataclass(frozen=True)
class FittedImage:
    """A radiograph in the square that the model takes.

    Attributes:
        pixels: gray values 0..65535, 0 = black.
        is_unnamed: as of `GrayImage`.
    """

    pixels: UInt16[np.ndarray, "size size"]
    is_unnamed: bool


def refuse_large(width: int, height: int) -> None:
    """Stop before memory is taken for an image that no radiograph device makes.

    Raises:
        ImageError: more than `LARGEST_PIXELS`.
    """
    if width * height > LARGEST_PIXELS:
        raise too_large(f"{width} x {height}")


def refuse_small(width: int, height: int) -> None:
    """Stop at what is too small to show anything.

    Raises:
        ImageError: a side below `SMALLEST_SIDE`.
    """
    if min(width, height) < SMALLEST_SIDE:
        expected = f"at least {SMALLEST_SIDE} pixels a side"
        detail = fault(expected=expected, got=f"{width} x {height}", remedy="Export the radiograph, not its icon")
        raise ImageError("image-too-small", detail)


def too_large(got: str) -> ImageError:
    """What is said of an image of more than `LARGEST_PIXELS`."""
    detail = fault(expected=f"at most {LARGEST_PIXELS:,} pixels", got=got, remedy="Check the file")
    return ImageError("image-too-large", detail)
