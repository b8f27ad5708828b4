"""Shape of a pixel, and the way up.

Source: DICOM PS3.3 10.7.1.3 (pixel spacing), C.7.6.3.1.7 (pixel aspect ratio), C.7.6.1.1.1 (patient orientation).
"""

from dataclasses import replace

import numpy as np

from client.data.dicom.elements import DataSet, invalid
from client.data.gray_image import GrayImage

_SHAPES = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
MOST_OBLONG = 4  # no detector or scanner has pixels longer than this


def pixel_aspect(data_set: DataSet) -> float:
    """Height of a pixel over its width; 1 where the file does not say.

    Raises:
        ImageError: not two positive numbers, or a pixel more than `MOST_OBLONG` times as long as wide.
    """
    for keyword in _SHAPES:
        numbers = data_set.numbers(keyword)
        if not numbers:
            continue
        remedy = "Correct the attribute, or remove it if pixels are square"
        got = "\\".join(f"{number:g}" for number in numbers)
        if len(numbers) != 2 or min(numbers) <= 0:
            raise invalid(keyword, expected="two positive numbers, row and column", got=got, remedy=remedy)
        aspect = numbers[0] / numbers[1]
        if not 1 / MOST_OBLONG <= aspect <= MOST_OBLONG:
            expected = f"a ratio of at most {MOST_OBLONG} to 1"
            raise invalid(keyword, expected=expected, got=got, remedy=remedy)
        return aspect
    return 1.0


def upright(image: GrayImage, data_set: DataSet) -> GrayImage:
    """The image turned so that rows run to the patient's left and columns to the feet, as radiographs are hung.

    A lateral view (rows to anterior or posterior) keeps its side: there is no single convention for it.
    """
    directions = data_set.texts("PatientOrientation")
    if len(directions) != 2 or not all(directions):
        return image
    across, down = (direction[0].upper() for direction in directions)
    pixels, aspect = image.pixels, image.pixel_aspect
    if across in "HF" and down not in "HF":
        pixels, aspect, across, down = pixels.T, 1 / aspect, down, across
    if across == "R":
        pixels = pixels[:, ::-1]
    if down == "H":
        pixels = pixels[::-1]
    return replace(image, pixels=np.ascontiguousarray(pixels), pixel_aspect=aspect)
