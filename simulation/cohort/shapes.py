"""Anti-aliased shapes on a grid of pixels, for many pictures at once.

A shape is a signed distance, negative inside, in units of the picture's width; `fill` and `rim` turn it into coverage
0..1. Coordinates run from 0 (left, top) to 1 (right, bottom). Numbers that differ between pictures come as arrays
[picture, 1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: [picture, height, width], or what broadcasts to it; float32 throughout.
Plane = NDArray[np.floating]


@dataclass(frozen=True)
class PixelGrid:
    """Where each pixel lies: x and y broadcast to [picture, height, width]."""

    x: Plane
    y: Plane

    def moved(self, *, right: Plane, down: Plane, turn: Plane, about: tuple[float, float]) -> PixelGrid:
        """Coordinates in which a shape appears shifted (right, down) and turned by `turn` radians about a point."""
        x, y = self.x - about[0] - right, self.y - about[1] - down
        cos, sin = np.cos(turn), np.sin(turn)
        return PixelGrid(cos * x + sin * y + about[0], cos * y - sin * x + about[1])


def pixel_points(size: int, *, scale: Plane, right: Plane, down: Plane) -> PixelGrid:
    """Pixel centres, as seen when the picture is enlarged by `scale` about its middle and then shifted."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    return PixelGrid((axis[None, None, :] - right) / scale + 0.5, (axis[None, :, None] - down) / scale + 0.5)


def fill(distance: Plane, *, softness: float) -> Plane:
    """1 inside, 0 outside, a linear edge of width `softness` (at least a pixel) between."""
    covered: Plane = np.clip(0.5 - distance / np.float32(softness), 0, 1)
    return covered


def rim(distance: Plane, *, thickness: Plane, softness: float) -> Plane:
    """Coverage of the shell just inside the outline, of the given thickness."""
    return np.clip(fill(distance, softness=softness) - fill(distance + thickness, softness=softness), 0, 1)


def ramp(value: Plane, *, start: float, end: float) -> Plane:
    """Smooth step from 0 at `start` to 1 at `end`."""
    part = np.clip((value - start) / (end - start), 0, 1)
    step: Plane = part * part * (3 - 2 * part)
    return step


def ellipse(
    at: PixelGrid, *, centre: tuple[float, float], radii: tuple[Plane | float, Plane | float], turn: float = 0.0
) -> Plane:
    """An ellipse; the distance is exact to first order near the outline."""
    x, y = at.x - centre[0], at.y - centre[1]
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    x, y = cos * x + sin * y, cos * y - sin * x
    length = np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2) + np.float32(1e-6)
    slope = np.sqrt((x / radii[0] ** 2) ** 2 + (y / radii[1] ** 2) ** 2) + np.float32(1e-6)
    return (length - 1) * length / slope


def capsule(
    at: PixelGrid, *, start: tuple[float, float], end: tuple[float, float], radii: tuple[float, float]
) -> Plane:
    """A rod with round ends whose radius goes from radii[0] at `start` to radii[1] at `end`."""
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    x, y = at.x - start[0], at.y - start[1]
    part = np.clip((x * along_x + y * along_y) / (along_x**2 + along_y**2), 0, 1)
    return np.hypot(x - part * along_x, y - part * along_y) - (radii[0] + part * (radii[1] - radii[0]))


def half_plane(at: PixelGrid, *, through: tuple[float, float], towards: tuple[float, float]) -> Plane:
    """Everything behind a line: negative on the side away from `towards` (a unit vector)."""
    return (at.x - through[0]) * towards[0] + (at.y - through[1]) * towards[1]


def merge(*shapes: Plane, blend: float = 0.0) -> Plane:
    """Union of shapes, with fillets of about `blend` where they meet."""
    union = shapes[0]
    for shape in shapes[1:]:
        if blend:
            mix = np.clip(0.5 + (shape - union) / (2 * blend), 0, 1)
            union = shape + mix * (union - shape) - blend * mix * (1 - mix)
        else:
            union = np.minimum(union, shape)
    return union
