"""Decode one DICOM radiograph to the gray values that a radiologist would see; nothing about the patient is read.

Source: DICOM PS3.3 C.7.6.3 (image pixel), C.11.1 (modality LUT), C.11.2 (VOI LUT), C.7.6.1.1.1 (patient orientation).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Shaped, UInt16
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.pixels.processing import apply_color_lut, apply_rescale, apply_windowing
from pydicom.pixels.utils import pixel_array

from client.data.problems import ImageError, fault, quote

WHITE = 65535
LARGEST_PIXELS = 100_000_000  # a radiograph has 10 to 30 million; more is a damaged or hostile header

# A data set holds these tags only: name, birth date and all other identity are skipped in the file, never parsed.
_TAGS = (
    "PatientOrientation",
    "BurnedInAnnotation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "PixelAspectRatio",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ModalityLUTSequence",
    "RescaleIntercept",
    "RescaleSlope",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Descriptor", "Data")
    ),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelData",
)
_NEEDED = ("Rows", "Columns", "PhotometricInterpretation", "PixelData")


@dataclass(frozen=True)
class GrayImage:
    """A radiograph before resizing.

    Attributes:
        pixels: gray values 0..65535, 0 = black, 65535 = white.
        pixel_aspect: height of a pixel over its width.
    """

    pixels: UInt16[np.ndarray, "height width"]
    pixel_aspect: float = 1.0


def decode_dicom(path: Path) -> GrayImage:
    """A single-frame radiograph as displayed: modality and VOI transforms applied, black is 0, standard orientation.

    Without a VOI transform a gray image is stretched from its smallest to its largest value; colour keeps its range.

    Raises:
        ImageError: multi-frame, burned-in annotation, too large, or no gray or colour radiograph.
        Exception: whatever the decoder of the transfer syntax raises for damaged data.
    """
    dataset = dcmread(path, specific_tags=list(_TAGS))
    _refuse_unusable(dataset)
    pixels = pixel_array(dataset)
    photometric = str(dataset.PhotometricInterpretation)
    if photometric in ("MONOCHROME1", "MONOCHROME2"):
        gray = _display(dataset, pixels)
    elif photometric == "PALETTE COLOR":
        gray = gray_of_colour(apply_color_lut(pixels, dataset))
    elif pixels.ndim == 3 and pixels.shape[2] == 3:
        gray = gray_of_colour(pixels)
    else:
        detail = fault(expected="gray or colour", got=quote(photometric), remedy="Export it as MONOCHROME2")
        raise ImageError("unreadable-image", detail)
    return _upright(GrayImage(pixels=gray, pixel_aspect=_pixel_aspect(dataset)), dataset)


def gray_of_colour(pixels: Shaped[np.ndarray, "height width _colour"]) -> UInt16[np.ndarray, "height width"]:
    """Luma of RGB (ITU-R 601-2, as Pillow's "L"), stretched from the full range of its integer type to 0..65535."""
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels[..., :3])).convert("L"), dtype=np.uint16) * 257
    luma = pixels[..., :3].astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    return _to_uint16(luma * (WHITE / np.iinfo(pixels.dtype).max))


def _refuse_unusable(dataset: Dataset) -> None:
    lacking = [tag for tag in _NEEDED if tag not in dataset]
    if lacking:
        detail = fault(expected="a whole image", got=f"no {', '.join(lacking)}", remedy="Export the image again")
        raise ImageError("unreadable-image", detail)
    if str(dataset.get("BurnedInAnnotation") or "").strip().upper() == "YES":
        detail = fault(
            expected="BurnedInAnnotation = NO",
            got="YES, so the pixels may show a name",
            remedy="Clean the pixels (DICOM PS3.15 Annex E), then set it to NO",
        )
        raise ImageError("burned-in-annotation", detail)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ImageError(
            "multi-frame", fault(expected="one frame", got=f"{frames}", remedy="Export the radiograph alone")
        )
    refuse_large(int(dataset.Columns), int(dataset.Rows))


def refuse_large(width: int, height: int) -> None:
    """Stop before memory is taken for an image that no radiograph device makes.

    Raises:
        ImageError: more than `LARGEST_PIXELS`.
    """
    if width * height > LARGEST_PIXELS:
        raise too_large(f"{width} x {height}")


def too_large(got: str) -> ImageError:
    """What is said of an image of more than `LARGEST_PIXELS`."""
    detail = fault(expected=f"at most {LARGEST_PIXELS:,} pixels", got=got, remedy="Check the file")
    return ImageError("image-too-large", detail)


def _display(dataset: Dataset, stored: Shaped[np.ndarray, "height width"]) -> UInt16[np.ndarray, "height width"]:
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
    return _to_uint16(shown)


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


def _to_uint16(values: Float64[np.ndarray, "height width"]) -> UInt16[np.ndarray, "height width"]:
    rounded: UInt16[np.ndarray, "height width"] = np.clip(np.rint(values), 0, WHITE).astype(np.uint16)
    return rounded


def _pixel_aspect(dataset: Dataset) -> float:
    for tag in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        ratio = dataset.get(tag)
        if ratio is not None and not isinstance(ratio, str) and len(ratio) == 2:
            vertical, horizontal = (float(part) for part in ratio)
            if vertical > 0 and horizontal > 0:
                return vertical / horizontal
    return 1.0


def _upright(image: GrayImage, dataset: Dataset) -> GrayImage:
    """The image turned so that rows run to the patient's left and columns to the feet, as radiographs are hung.

    A lateral view (rows to anterior or posterior) keeps its side: there is no single convention for it.
    """
    directions = dataset.get("PatientOrientation")
    if directions is None or isinstance(directions, str) or len(directions) != 2 or not all(directions):
        return image
    across, down = (str(direction)[0] for direction in directions)
    pixels, aspect = image.pixels, image.pixel_aspect
    if across in "HF" and down not in "HF":
        pixels, aspect, across, down = pixels.T, 1 / aspect, down, across
    if across == "R":
        pixels = pixels[:, ::-1]
    if down == "H":
        pixels = pixels[::-1]
    return GrayImage(pixels=np.ascontiguousarray(pixels), pixel_aspect=aspect)
