"""Numbers of images: exposure, sharpness, and thumbnails."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, Int64, UInt16

GRAY_LEVELS = 65_535.0
GRID = 16  # regions of an image along each side
PIXELS = ("brightness", "contrast", "sharpness", "saturation")
WHITE = 0.99  # gray from which on a pixel is white
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
    for gray in gray_chunks(images, rows):
        variance = gray.var(axis=(1, 2))
        middle = gray[:, 1:-1, 1:-1]
        around = gray[:, :-2, 1:-1] + gray[:, 2:, 1:-1] + gray[:, 1:-1, :-2] + gray[:, 1:-1, 2:]
        edges = np.square(4 * middle - around).mean(axis=(1, 2))
        sharpness = np.log((edges + 1e-8) / (variance + 1e-8))
        white = (gray >= WHITE).mean(axis=(1, 2))
        numbers.append(np.stack([gray.mean(axis=(1, 2)), np.sqrt(variance), sharpness, white], axis=1))
        thumbnails.append(make_thumbnails(gray))
    return np.concatenate(numbers), np.concatenate(thumbnails)


def gray_chunks(
    images: UInt16[np.ndarray, "patient height width"], rows: Int64[np.ndarray, " row"]
) -> Iterator[Float64[np.ndarray, "chunk height width"]]:
    """Gray from 0 to 1, some images at a time."""
    for start in range(0, len(rows), _CHUNK):
        yield images[rows[start : start + _CHUNK]].astype(np.float64) / GRAY_LEVELS


def make_thumbnails(gray: Float64[np.ndarray, "image height width"]) -> Float64[np.ndarray, "image cell"]:
    """Mean gray of GRID x GRID regions, row by row; pixels at a border belong to one region only."""
    down, right = ((np.arange(GRID) * side) // GRID for side in gray.shape[1:])
    sums = np.add.reduceat(np.add.reduceat(gray, down, axis=1), right, axis=2)
    heights, widths = np.diff([*down, gray.shape[1]]), np.diff([*right, gray.shape[2]])
    means: Float64[np.ndarray, "image cell"] = (sums / np.outer(heights, widths)).reshape(len(gray), -1)
    return means
