"""A schematic chest radiograph: PA view, the patient's left on the right of the picture.

Two causes are drawn. `opacity`: both lungs whiten from the base upwards and fluid rises in the angles. `heart_width`:
the heart's silhouette widens. Nothing else in the picture knows about the patient's risk.
"""

from dataclasses import dataclass

import numpy as np

from simulation.cohort.hip_image import shown_parameter
from simulation.cohort.patients import Vector
from simulation.cohort.shapes import PixelGrid, Plane, capsule, ellipse, fill, merge, pixel_points, ramp

#: Parameters drawn: start + per_sd * o, clipped to the limits. Opacity is attenuation; fluid and heart are picture
#: widths.
OPACITY = {"start": 0.24, "per_sd": 0.11, "low": 0.0, "high": 0.66}
FLUID = {"start": 0.05, "per_sd": 0.045, "low": 0.0, "high": 0.22}
HEART = {"start": 0.150, "per_sd": 0.022, "low": 0.09, "high": 0.23}


@dataclass(frozen=True)
class _Chest:
    at: PixelGrid
    opacity: Plane
    fluid: Plane
    heart: Plane
    softness: float


def render_chests(opacity: Vector, heart_width: Vector, *, size: int, rng: np.random.Generator) -> Plane:
    """Chest radiographs, gray 0 (black) to 1 (white).

    Args:
        opacity: what the picture shows of that cause, standard units; one entry a patient.
        heart_width: the same for the heart.
        size: edge, pixels.
        rng: for position, exposure and patchiness, which mean nothing.

    Returns:
        [patient, size, size].
    """
    n = len(opacity)

    def vary(sd: float) -> Plane:
        return np.clip(rng.standard_normal((n, 1, 1), dtype=np.float32), -2.5, 2.5) * np.float32(sd)

    at = pixel_points(size, scale=1 + vary(0.025), right=vary(0.012), down=vary(0.012))
    chest = _Chest(
        at=at,
        opacity=shown_parameter(opacity, **OPACITY),
        fluid=shown_parameter(opacity, **FLUID),
        heart=shown_parameter(heart_width, **HEART),
        softness=max(1.2 / size, 0.010),
    )
    patches = 1 + 0.25 * np.sin(at.x * 19 + vary(1.5)) * np.sin(at.y * 17 + vary(1.5))
    gray = 1 - np.exp(-_attenuation(chest, patches=patches) * (1 + vary(0.035)))
    grain = rng.standard_normal((n, size, size), dtype=np.float32) * np.float32(0.015)
    picture: Plane = np.clip(gray + grain, 0, 1)
    return picture


def _attenuation(chest: _Chest, *, patches: Plane) -> Plane:
    at = chest.at
    lung = fill(_lungs(at), softness=2 * chest.softness)
    heart = fill(_heart(chest), softness=2 * chest.softness)
    # Fluid climbs at the outer wall: the meniscus.
    surface = 0.80 - chest.fluid - 0.10 * chest.fluid / 0.22 * ramp(np.abs(at.x - 0.5), start=0.15, end=0.40)
    air = lung * (1 - heart) * (1 - fill(surface - at.y, softness=0.03))
    body = fill(_body(at), softness=0.02)
    basal = 0.25 + 0.75 * ramp(at.y, start=0.25, end=0.75)
    soft = 1.05 - 0.80 * air
    whitened = np.minimum(1.05, soft + air * chest.opacity * basal * patches)
    bones = 0.30 * _spine(chest) + 0.11 * _ribs(at) * (0.35 + 0.65 * lung) + 0.16 * _clavicles(at)
    attenuation: Plane = body * (whitened + bones)
    return attenuation


def _body(at: PixelGrid) -> Plane:
    neck = capsule(at, start=(0.5, -0.2), end=(0.5, 0.10), radii=(0.11, 0.12))
    shoulders = capsule(at, start=(0.22, 0.24), end=(0.78, 0.24), radii=(0.15, 0.15))
    trunk = capsule(at, start=(0.5, 0.55), end=(0.5, 1.3), radii=(0.43, 0.44))
    return merge(neck, shoulders, trunk, blend=0.10)


def _lungs(at: PixelGrid) -> Plane:
    sides = []
    for centre_x, dome in ((0.300, 0.755), (0.705, 0.785)):
        wider = 1 + 0.22 * (at.y - 0.45)  # apices are narrow, bases wide
        outline = ellipse(
            PixelGrid((at.x - centre_x) / wider + centre_x, at.y), centre=(centre_x, 0.50), radii=(0.165, 0.385)
        )
        diaphragm = ellipse(at, centre=(centre_x, dome + 0.20), radii=(0.26, 0.20))
        sides.append(np.maximum(outline, -diaphragm))
    return merge(*sides)


def _heart(chest: _Chest) -> Plane:
    at, width = chest.at, chest.heart
    # The right border hardly moves; the left one does.
    shifted = PixelGrid(at.x - 0.45 * (width - 0.10), at.y)
    ventricles = ellipse(shifted, centre=(0.520, 0.640), radii=(width, 0.150 + 0.25 * (width - 0.15)), turn=0.35)
    vessels = capsule(at, start=(0.505, 0.20), end=(0.500, 0.60), radii=(0.055, 0.090))
    aorta = ellipse(at, centre=(0.560, 0.330), radii=(0.045, 0.045))
    hila = merge(
        ellipse(at, centre=(0.405, 0.465), radii=(0.040, 0.065)),
        ellipse(at, centre=(0.605, 0.440), radii=(0.038, 0.060)),
    )
    return merge(ventricles, vessels, aorta, hila, blend=0.03)


def _spine(chest: _Chest) -> Plane:
    bones = fill(np.abs(chest.at.x - 0.5) - 0.034, softness=0.02)
    return bones * (0.75 + 0.25 * np.sin(chest.at.y * 75))


def _ribs(at: PixelGrid) -> Plane:
    out = np.abs(at.x - 0.5)
    drop = 0.95 * (out - 0.15) ** 2 * 3 + 0.10 * out
    total = np.zeros_like(at.x + at.y)
    for level in np.linspace(0.13, 0.66, 7).tolist():
        total = np.maximum(total, fill(np.abs(at.y - level - drop) - 0.011, softness=0.018))
    return total * ramp(out, start=0.04, end=0.08) * (1 - ramp(out, start=0.385, end=0.415))


def _clavicles(at: PixelGrid) -> Plane:
    sides = [
        capsule(at, start=(0.5 + 0.05 * s, 0.215), end=(0.5 + 0.33 * s, 0.135), radii=(0.016, 0.014)) for s in (-1, 1)
    ]
    return fill(merge(*sides), softness=0.015)
