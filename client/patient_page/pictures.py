"""The patient's radiographs and their heat maps as PNG, on one grid: that of the pixels that the model saw."""

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8, UInt16
from PIL import Image

from client.data import list_patient_images
from client.data.images import letterbox, open_image
from client.data.problems import ImageError
from client.site import Site

SHARP_SIDE = 768  # pixels: about what a page has room for
SQUARES = 16  # a side: single pixels flicker, and nobody could read them
RAISES, LOWERS = (255, 140, 0), (60, 150, 255)


@dataclass(frozen=True)
class Radiograph:
    """A radiograph that covers exactly the square that the model saw.

    Attributes:
        gray: for display; its side is a whole multiple of `size`.
        size: side of the model's grid in pixels.
    """

    gray: UInt8[np.ndarray, "side side"]
    size: int

    @property
    def is_sharp(self) -> bool:
        """True if it is finer than what the model saw."""
        return len(self.gray) > self.size


@dataclass(frozen=True)
class HeatMap:
    """Attribution summed in squares of pixels: their sum is that of the pixels.

    Attributes:
        squares: log odds of each square.
        side: of a square in pixels; the last row and column may have fewer.
        colours: red, green, blue, opacity of each pixel of the model's grid.
    """

    squares: Float64[np.ndarray, "row column"]
    side: int
    colours: UInt8[np.ndarray, "size size 4"]

    @property
    def raising(self) -> float:
        """Sum of the squares that raise the risk."""
        return float(self.squares[self.squares > 0].sum())

    @property
    def lowering(self) -> float:
        """Sum of the squares that lower the risk."""
        return float(self.squares[self.squares < 0].sum())


def read_radiographs(site: Site, row: int) -> dict[str, Radiograph]:
    """The radiographs that a patient has.

    The file is decoded again, to be shown finer than the model saw it. Where it is gone, or does not hold what the
    model saw, the model's own picture is shown.

    Args:
        site: the hospital.
        row: of the patient in its arrays.
    """
    patients = site.patients
    files = list_patient_images(site.folder, site.schema, patients.patient_ids[row])
    found = {}
    for name in site.schema.images:
        if patients.present[name][row]:
            seen = np.asarray(patients.raw[name][row])
            shown = _enlarge(files[name], seen) if name in files else seen
            found[name] = Radiograph(_to_gray(shown), len(seen))
    return found


def _enlarge(path: Path, seen: UInt16[np.ndarray, "size size"]) -> UInt16[np.ndarray, "side side"]:
    """The picture finer than the model saw it; as it saw it, where the file is another than the one it saw."""
    size = len(seen)
    try:
        with warnings.catch_warnings():  # decoders warn of oddities that they then handle
            warnings.simplefilter("ignore")
            image = open_image(path)
    except ImageError:
        return seen
    if not np.array_equal(letterbox(image, size=size), seen):
        return seen
    finer = -(-max(image.pixels.shape) // size)
    return letterbox(image, size=size, enlarge=max(1, min(finer, SHARP_SIDE // size)))


def _to_gray(pixels: UInt16[np.ndarray, "side side"]) -> UInt8[np.ndarray, "side side"]:
    return np.asarray(np.rint(pixels / 257), dtype=np.uint8)


def draw_heat_map(pixels: Float64[np.ndarray, "size size"], *, full: float) -> HeatMap:
    """Squares of pixels, the stronger the more opaque; orange raises the risk, blue lowers it.

    Args:
        pixels: attribution in log odds.
        full: log odds from which a colour is full, the same for every picture of the page.
    """
    size = len(pixels)
    side = max(1, round(size / SQUARES))
    first = np.arange(0, size, side)
    squares = np.add.reduceat(np.add.reduceat(pixels, first, axis=0), first, axis=1)
    strength = np.clip(squares / full, -1.0, 1.0)
    whole = np.repeat(np.repeat(strength, side, axis=0), side, axis=1)[:size, :size]
    colours = np.zeros((size, size, 4), dtype=np.uint8)
    colours[..., :3] = np.where(whole[..., None] > 0, RAISES, LOWERS)
    colours[..., 3] = np.rint(255 * np.abs(whole))
    return HeatMap(squares, side, colours)


def png_uri(pixels: UInt8[np.ndarray, "..."]) -> str:
    """A picture (gray, or red, green, blue, opacity) as a data URI."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
