"""Measure images: exposure, sharpness, thumbnails, and whether they are blank, inverted or turned."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt16

from shared_model.preprocessing.statistics import GRAY_LEVELS
from shared_model.quality.measures import GRID, PIXELS

WHITE = 0.99  # gray from which on a pixel is white
BLANK_SD = 0.01  # of gray in the middle of an image, below which there is nothing to see
LIKENESS = 0.3  # correlation with the mean image from which on an image shows the same thing
MARGIN = 0.3  # by so much the wrong way round must fit better than upright
_CHUNK = 64  # images at a time: a hospital's images do not fit into memory


def measure_images(
    images: UInt16[np.ndarray, "patient height width"], rows: Int64[np.ndarray, " row"]
) -> tuple[Float64[np.ndarray, "row number"], Float64[np.ndarray, "row cell"]]:
    """Numbers (`PIXELS`) and thumbnails of some images.

    Args:
        images: gray values 0..65535; may be memory-mapped.
        rows: which of them.

    Returns:
        Mean gray, its standard deviation over the image, sharpness (logarithm of the mean square of the Laplacian over
        the variance of gray) and share of white pixels, on a scale of 0 to 1; the mean gray of GRID x GRID regions.
    """
    numbers, thumbnails = [np.zeros((0, len(PIXELS)))], [np.zeros((0, GRID * GRID))]
    for gray in _gray_chunks(images, rows):
        variance = gray.var(axis=(1, 2))
        middle = gray[:, 1:-1, 1:-1]
        around = gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:]
        edges = np.square(4 * middle - around).mean(axis=(1, 2))
        sharpness = np.log((edges + 1e-8) / (variance + 1e-8))
        white = (gray >= WHITE).mean(axis=(1, 2))
        numbers.append(np.stack([gray.mean(axis=(1, 2)), np.sqrt(variance), sharpness, white], axis=1))
        thumbnails.append(make_thumbnails(gray))
    return np.concatenate(numbers), np.concatenate(thumbnails)


def _gray_chunks(
    images: UInt16[np.ndarray, "patient height width"], rows: Int64[np.ndarray, " row"]
) -> Iterator[Float64[np.ndarray, "chunk height width"]]:
    for start in range(0, len(rows), _CHUNK):
        yield images[rows[start : start + _CHUNK]].astype(np.float64) / GRAY_LEVELS


def make_thumbnails(gray: Float64[np.ndarray, "image height width"]) -> Float64[np.ndarray, "image cell"]:
    """Mean gray of GRID x GRID regions, row by row; pixels at a border belong to one region only."""
    down, right = ((np.arange(GRID) * side) // GRID for side in gray.shape[1:])
    sums = np.add.reduceat(np.add.reduceat(gray, down, axis=1), right, axis=2)
    heights, widths = np.diff([*down, gray.shape[1]]), np.diff([*right, gray.shape[2]])
    means: Float64[np.ndarray, "image cell"] = (sums / np.outer(heights, widths)).reshape(len(gray), -1)
    return means


def find_blank(
    images: UInt16[np.ndarray, "patient height width"], rows: Int64[np.ndarray, " row"]
) -> Bool[np.ndarray, " row"]:
    """Which images show nothing in their middle half; the border may hold the bars of the square or a label."""
    found = [np.zeros(0, dtype=bool)]
    for gray in _gray_chunks(images, rows):
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
