"""Images that are blank, inverted or turned."""

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt16

from shared_model.quality.image_measures import GRID, gray_chunks

BLANK_SD = 0.01  # of gray in the middle of an image, below which there is nothing to see
LIKENESS = 0.3  # correlation with the mean image from which on an image shows the same thing
MARGIN = 0.3  # by so much the wrong way round must fit better than upright


def find_blank(
    images: UInt16[np.ndarray, "patient height width"], rows: Int64[np.ndarray, " row"]
) -> Bool[np.ndarray, " row"]:
    """Which images show nothing in their middle half; the border may hold the bars of the square or a label."""
    found = [np.zeros(0, dtype=bool)]
    for gray in gray_chunks(images, rows):
        height, width = gray.shape[1:]
        middle = gray[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
        found.append(middle.std(axis=(1, 2)) < BLANK_SD)
    return np.concatenate(found)


def find_wrong_way(
    thumbnails: Float64[np.ndarray, "image cell"], reference: Float64[np.ndarray, " cell"]
) -> tuple[Bool[np.ndarray, " image"], Bool[np.ndarray, " image"]]:
    """Which images have black and white exchanged, and which are turned or upside down.

    A mirrored image counts as upright: a left and a right hip are mirror images.

    Args:
        thumbnails: of the images.
        reference: the mean thumbnail that sound images resemble.
    """
    square = _centre(reference[None]).reshape(GRID, GRID)
    images = _centre(thumbnails)
    upright = images @ np.stack([square, square[:, ::-1]]).reshape(2, -1).T
    ways = [np.rot90(square, 2), square[::-1]]
    ways += [np.rot90(turned, quarter) for turned in (square, square[:, ::-1]) for quarter in (1, 3)]
    wrong = (images @ np.stack(ways).reshape(len(ways), -1).T).max(axis=1)
    right, negative = upright.max(axis=1), -upright.min(axis=1)
    inverted = (negative >= LIKENESS) & (negative >= right + MARGIN) & (negative >= wrong)
    turned = (wrong >= LIKENESS) & (wrong >= right + MARGIN) & ~inverted
    return inverted, turned


def _centre(thumbnails: Float64[np.ndarray, "image cell"]) -> Float64[np.ndarray, "image cell"]:
    """Mean 0 and length 1, so that a product is a correlation; a constant becomes 0."""
    moved = thumbnails - thumbnails.mean(axis=1, keepdims=True)
    length = np.linalg.norm(moved, axis=1, keepdims=True)
    centred: Float64[np.ndarray, "image cell"] = moved / np.where(length > 1e-9, length, np.inf)
    return centred
