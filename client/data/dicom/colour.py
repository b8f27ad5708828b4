"""Colour to gray."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Shaped, UInt16
from PIL import Image

from client.data.gray_image import WHITE


def gray_of_colour(pixels: Shaped[np.ndarray, "height width _colour"]) -> UInt16[np.ndarray, "height width"]:
    """Luma of RGB (ITU-R 601-2, as Pillow's "L"), stretched from the full range of its integer type to 0..65535."""
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels[..., :3])).convert("L"), dtype=np.uint16) * 257
    luma = pixels[..., :3].astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return to_uint16(luma * (WHITE / np.iinfo(pixels.dtype).max))


def to_uint16(values: Float64[np.ndarray, "height width"]) -> UInt16[np.ndarray, "height width"]:
    """Display values rounded and cut to 0..65535."""
    rounded: UInt16[np.ndarray, "height width"] = np.clip(np.rint(values), 0, WHITE).astype(np.uint16)
    return rounded
