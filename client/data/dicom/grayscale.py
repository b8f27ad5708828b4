"""Stored values to display values: padding, modality LUT, VOI LUT or window, inversion.

Source: DICOM PS3.3 C.7.5.1.1.2 (padding), C.11.1 (modality LUT), C.11.2 (VOI LUT), C.11.6 (presentation LUT).
"""

import numpy as np
from jaxtyping import Bool, Float64, Integer, UInt16

from client.data.dicom.colour import to_uint16
from client.data.dicom.elements import DataSet, differs, invalid
from client.data.dicom.header import PixelHeader
from client.data.dicom.look_up import Range, read_table
from client.data.dicom.stored_values import StoredValues
from client.data.gray_image import WHITE
from client.data.problems import quote

Values = Float64[np.ndarray, "height width"]
_INVERTED = {"MONOCHROME1": "INVERSE", "MONOCHROME2": "IDENTITY"}


def display_gray(data_set: DataSet, header: PixelHeader, stored: StoredValues) -> UInt16[np.ndarray, "height width"]:
    """Display values of a gray image, 0 = black; without a VOI transform stretched over its values.

    Raises:
        ImageError: an attribute breaks a rule of DICOM, or leaves nothing to see.
    """
    shape = data_set.text("PresentationLUTShape")
    if shape and shape != _INVERTED[header.photometric]:
        expected = f"{_INVERTED[header.photometric]} for {header.photometric}"
        raise differs("PresentationLUTShape", header=expected, pixels=quote(shape))
    padding = find_padding(data_set, header, stored)
    values, inputs = _apply_modality(data_set, header, stored.values)
    shown = _apply_voi(data_set, values, inputs, padding)
    if header.photometric == "MONOCHROME1":
        shown = WHITE - shown
    if padding is not None:
        shown[padding] = 0  # black, whichever end of the scale the device filled it with
    return to_uint16(shown)


def find_padding(
    data_set: DataSet, header: PixelHeader, stored: StoredValues
) -> Bool[np.ndarray, "height width"] | None:
    """Where the device filled in for pixels that it did not take; None if the header names no filling.

    The 16 bits of the attribute are read as those of a pixel, whatever VR they have. A value that the stored bits
    cannot hold is looked for in the whole cells.
    """
    value = data_set.short("PixelPaddingValue")
    if value is None:
        return None
    limit = data_set.short("PixelPaddingRangeLimit")
    patterns = [value, value if limit is None else limit]
    if limit is None and stored.cells is not None and not _fits(value, header):
        return np.asarray(stored.cells == value % (1 << header.bits_allocated))
    low, high = sorted(_as_pixel(pattern, header) for pattern in patterns)
    return np.asarray((stored.values >= low) & (stored.values <= high))


def _fits(pattern: int, header: PixelHeader) -> bool:
    low, high = header.limits
    return low <= _as_pixel(pattern, header) <= high


def _as_pixel(pattern: int, header: PixelHeader) -> int:
    """16 bits as a pixel has them: with its sign, and of a cell of 8 bits the lower 8."""
    if header.bits_allocated == 8:
        pattern %= 1 << 8
    if not header.signed:
        return pattern
    low, high = header.limits
    if high < pattern <= high - low:  # two's complement of the stored bits alone
        return pattern - (high - low + 1)
    return pattern - (1 << 16) if pattern >= 1 << 15 else pattern


def _apply_modality(
    data_set: DataSet, header: PixelHeader, stored: Integer[np.ndarray, "height width"]
) -> tuple[Values, Range]:
    """Values of the modality, and the smallest and largest there could be."""
    low, high = header.limits
    luts = data_set.items("ModalityLUTSequence")
    if luts:
        table = read_table(luts[0], descriptor="LUTDescriptor", data="LUTData", inputs=(low, high))
        return table.apply(stored.astype(np.float64)), (0, (1 << 16) - 1)
    slope = (*data_set.numbers("RescaleSlope"), 1.0)[0]
    intercept = (*data_set.numbers("RescaleIntercept"), 0.0)[0]
    if slope == 0:
        raise invalid("RescaleSlope", expected="a number other than 0", got="0")
    first, last = sorted((low * slope + intercept, high * slope + intercept))
    return stored.astype(np.float64) * slope + intercept, (first, last)


def _apply_voi(
    data_set: DataSet, values: Values, inputs: Range, padding: Bool[np.ndarray, "height width"] | None
) -> Values:
    """Display values 0..65535 by the first VOI LUT, else by the first window, else from smallest to largest value."""
    seen = values if padding is None or padding.all() else values[~padding]
    low, high = float(seen.min()), float(seen.max())
    luts = data_set.items("VOILUTSequence")
    if luts:
        table = read_table(luts[0], descriptor="LUTDescriptor", data="LUTData", inputs=inputs)
        shown = table.apply(values) * (WHITE / table.white)
        named = f"VOI LUT of {len(table.entries)} entries from {table.first}"
    elif data_set.numbers("WindowCenter") or data_set.numbers("WindowWidth"):
        center, width, function = _read_window(data_set)
        shown = apply_window(values, center=center, width=width, function=function)
        named = f"window of center {center:g} and width {width:g}"
    else:
        if low == high:
            return np.zeros_like(values)
        return np.asarray(np.clip((values - low) * (WHITE / (high - low)), 0, WHITE))
    if low < high and shown.min() == shown.max():
        expected = f"gray values that differ, as the pixels ({low:g} to {high:g}) do"
        raise invalid("VOI transform", expected=expected, got=f"one, by the {named}")
    return shown


def _read_window(data_set: DataSet) -> tuple[float, float, str]:
    """Center and width of the first window, and its function."""
    centers, widths = data_set.numbers("WindowCenter"), data_set.numbers("WindowWidth")
    if not centers or not widths:
        raise invalid("WindowCenter", expected="a center and a width", got="one of the two")
    function = data_set.text("VOILUTFunction") or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise invalid("VOILUTFunction", expected="LINEAR, LINEAR_EXACT or SIGMOID", got=quote(function))
    width = widths[0]
    if width <= 0 or (function == "LINEAR" and width < 1):
        expected = "at least 1" if function == "LINEAR" else "more than 0"
        remedy = "Correct the attribute, or remove the window"
        raise invalid("WindowWidth", expected=f"{expected} for {function}", got=f"{width:g}", remedy=remedy)
    return centers[0], width, function


def apply_window(values: Values, *, center: float, width: float, function: str) -> Values:
    """Values through a window onto 0..65535.

    Source: DICOM PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT).
    """
    if function == "SIGMOID":
        return np.asarray(WHITE / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700))))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return np.where(values > center, float(WHITE), 0.0)
    return np.asarray(np.clip((values - center) / width + 0.5, 0, 1) * WHITE)
