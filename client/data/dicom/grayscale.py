"""Stored values to display values: padding, modality LUT, VOI LUT or window, MONOCHROME1."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Shaped, UInt16
from pydicom import Dataset
from pydicom.pixels.processing import apply_rescale, apply_windowing

from client.data.dicom.colour import to_uint16
from client.data.gray_image import WHITE
from client.data.problems import ImageError, fault


def display_gray(dataset: Dataset, stored: Shaped[np.ndarray, "height width"]) -> UInt16[np.ndarray, "height width"]:
    """Display values of a gray image, 0 = black; without a VOI transform stretched over its values."""
    if dataset.PixelRepresentation == 0:
        stored = stored & ((1 << int(dataset.BitsStored)) - 1)  # old devices keep overlays in the bits above
    padding = _padding(dataset, stored)
    values: Float64[np.ndarray, "height width"] = stored.astype(np.float64)
    if dataset.get("ModalityLUTSequence"):
        values, _ = _look_up(values, dataset, dataset.ModalityLUTSequence[0])
    elif dataset.get("RescaleSlope") is not None and dataset.get("RescaleIntercept") is not None:
        values = apply_rescale(values, dataset)
    shown = _apply_voi(dataset, values, padding)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = WHITE - shown
    if padding is not None:
        shown[padding] = 0  # black, whichever end of the scale the device filled it with
    return to_uint16(shown)


def _padding(dataset: Dataset, stored: Shaped[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"] | None:
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    return (stored >= low) & (stored <= high)


def _apply_voi(
    dataset: Dataset, values: Float64[np.ndarray, "height width"], padding: Bool[np.ndarray, "height width"] | None
) -> Float64[np.ndarray, "height width"]:
    """Display values 0..65535 by VOI LUT, else by the first window, else from the smallest to the largest value."""
    if dataset.get("VOILUTSequence"):
        shown, largest = _look_up(values, dataset, dataset.VOILUTSequence[0])
        return shown * (WHITE / max(largest, 1.0))
    center, width = _first(dataset.get("WindowCenter")), _first(dataset.get("WindowWidth"))
    if center is not None and width is not None:
        return _window(values, center=center, width=width, function=str(dataset.get("VOILUTFunction") or "LINEAR"))
    seen = values if padding is None or padding.all() else values[~padding]
    low, high = float(seen.min()), float(seen.max())
    if low == high:
        return np.zeros_like(values)
    stretched: Float64[np.ndarray, "height width"] = np.clip((values - low) * (WHITE / (high - low)), 0, WHITE)
    return stretched


def _window(
    values: Float64[np.ndarray, "height width"], *, center: float, width: float, function: str
) -> Float64[np.ndarray, "height width"]:
    """The window as pydicom applies it, onto 0..65535 whatever the bits stored: the display has 16 and no rescale."""
    display = Dataset()
    display.PhotometricInterpretation = "MONOCHROME2"
    display.PixelRepresentation = 0
    display.BitsStored = 16
    display.WindowCenter = center
    display.WindowWidth = width
    display.VOILUTFunction = function.strip()
    shown: Float64[np.ndarray, "height width"] = apply_windowing(values, display)
    return shown


def _look_up(
    values: Float64[np.ndarray, "height width"], dataset: Dataset, item: Dataset
) -> tuple[Float64[np.ndarray, "height width"], float]:
    """Values through a LUT, and the LUT's largest entry.

    Not pydicom's `apply_voi`: it wraps inputs above 255 when the entries have 8 bits.
    """
    n_entries, first, bits = (int(part) for part in item.LUTDescriptor)
    n_entries = n_entries or 1 << 16
    raw: Any = item.LUTData
    if isinstance(raw, bytes):
        wide = len(raw) >= 2 * n_entries
        order = "<" if dataset.original_encoding[1] else ">"
        entries = np.frombuffer(raw, dtype=f"{order}u2" if wide else "u1", count=n_entries)
    else:
        entries = np.asarray(raw)
    table = entries.astype(np.float64)
    if len(table) < n_entries or not 8 <= bits <= 16:
        raise ImageError(
            "unreadable-image",
            fault(
                expected=f"a LUT of {n_entries} entries", got=f"{len(table)} of {bits} bits", remedy="Export it again"
            ),
        )
    position = np.clip(values - first, 0, n_entries - 1).astype(np.int64)
    return table[position], float(table.max())


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return float(value)
    return float(value[0]) if len(value) else None
