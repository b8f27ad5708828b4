"""Shape of a pixel, and the way up."""

from __future__ import annotations

import numpy as np
from pydicom import Dataset

from client.data.gray_image import GrayImage


def pixel_aspect(dataset: Dataset) -> float:
    """Height of a pixel over its width; 1 where the file does not say."""
    for tag in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        ratio = dataset.get(tag)
        if ratio is not None and not isinstance(ratio, str) and len(ratio) == 2:
            vertical, horizontal = (float(part) for part in ratio)
            if vertical > 0 and horizontal > 0:
                return vertical / horizontal
    return 1.0


def upright(image: GrayImage, dataset: Dataset) -> GrayImage:
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
