"""Colour to gray: the brightness that a viewer would show."""

import numpy as np
from jaxtyping import Float64, Integer, UInt16
from PIL import Image

from client.data.dicom.elements import DataSet, differs
from client.data.dicom.header import PixelHeader
from client.data.dicom.look_up import read_table
from client.data.dicom.stored_values import StoredValues
from client.data.gray_image import WHITE

_LUMA = {"Red": 0.299, "Green": 0.587, "Blue": 0.114}  # ITU-R 601-2


def gray_of_colour(header: PixelHeader, stored: StoredValues) -> UInt16[np.ndarray, "height width"]:
    """Luma of the colours, stretched from the range of the stored bits to 0..65535.

    Of 8 bits it is rounded to 8 bits, as Pillow's "L" is: a radiograph is the same gray as DICOM and as PNG.
    """
    full = header.limits[1]
    pixels = _rgb_of_ybr(stored.values, full) if stored.colour == "YBR" else stored.values
    if full == 255:
        rgb = np.ascontiguousarray(pixels.astype(np.uint8))
        return np.asarray(Image.fromarray(rgb).convert("L"), dtype=np.uint16) * 257
    return to_uint16(pixels.astype(np.float64) @ np.array(list(_LUMA.values())) * (WHITE / full))


def _rgb_of_ybr(pixels: Integer[np.ndarray, "height width 3"], full: int) -> Integer[np.ndarray, "height width 3"]:
    """Red, green and blue, cut to what a screen can show: colours that a lossy stream made up are not as bright.

    Source: DICOM PS3.3 C.7.6.3.1.2 (YBR_FULL).
    """
    bright, blue, red = (pixels[..., channel].astype(np.float32) for channel in range(3))
    blue -= (full + 1) // 2
    red -= (full + 1) // 2
    rgb = np.stack([bright + 1.402 * red, bright - 0.344136 * blue - 0.714136 * red, bright + 1.772 * blue], axis=2)
    return np.asarray(np.clip(np.rint(rgb), 0, full).astype(np.int32))


def gray_of_palette(
    data_set: DataSet, header: PixelHeader, values: Integer[np.ndarray, "height width"]
) -> UInt16[np.ndarray, "height width"]:
    """Luma of the colours that a palette gives the values.

    Raises:
        ImageError: a palette in segments, or one that breaks a rule.
    """
    inputs = header.limits
    luma: Float64[np.ndarray, "height width"] = np.zeros(values.shape)
    for colour, weight in _LUMA.items():
        if data_set.holds(f"Segmented{colour}PaletteColorLookupTableData"):
            raise differs("palette", header="a palette entry by entry", pixels="one in segments")
        table = read_table(
            data_set,
            descriptor=f"{colour}PaletteColorLookupTableDescriptor",
            data=f"{colour}PaletteColorLookupTableData",
            inputs=inputs,
        )
        luma += weight * table.apply(values.astype(np.float64)) * (WHITE / ((1 << table.bits) - 1))
    return to_uint16(luma)


def to_uint16(values: Float64[np.ndarray, "height width"]) -> UInt16[np.ndarray, "height width"]:
    """Display values rounded and cut to 0..65535."""
    rounded: UInt16[np.ndarray, "height width"] = np.clip(np.rint(values), 0, WHITE).astype(np.uint16)
    return rounded
