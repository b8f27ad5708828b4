"""A schematic hip radiograph: AP view of a fractured right hip (lateral is on the left of the picture).

Two causes are drawn. `displacement`: the shaft and trochanter ride up and tilt away from the head, by 7 mm per
standard deviation. `bone_loss`: cortices get thinner and bone fainter. Nothing else in the picture knows about the
patient's risk.
"""

from dataclasses import dataclass

import numpy as np

from simulation.cohort.patients import Vector
from simulation.cohort.shapes import (
    PixelGrid,
    Plane,
    capsule,
    ellipse,
    fill,
    half_plane,
    merge,
    pixel_points,
    ramp,
    rim,
)

FIELD_MM = 200.0
#: Parameters drawn: start + per_sd * o, clipped to the limits; in picture widths and relative density.
DISPLACEMENT = {"start": 0.088, "per_sd": 0.035, "low": 0.0, "high": 0.22}
DENSITY = {"start": 0.92, "per_sd": -0.15, "low": 0.35, "high": 1.45}

_HEAD = (0.605, 0.385)
_NECK_END = (0.375, 0.515)
_BREAK = (0.480, 0.456)
_AXIS = (-0.8706, 0.4920)  # from the head to the trochanter


@dataclass(frozen=True)
class _Hip:
    at: PixelGrid
    displacement: Plane
    density: Plane
    softness: float


def render_hips(displacement: Vector, bone_loss: Vector, *, size: int, rng: np.random.Generator) -> Plane:
    """Hip radiographs, gray 0 (black) to 1 (white).

    Args:
        displacement: what the picture shows of that cause, standard units; one entry a patient.
        bone_loss: the same for bone loss.
        size: edge, pixels.
        rng: for position, exposure and build, which mean nothing.

    Returns:
        [patient, size, size].
    """
    n = len(displacement)

    def vary(sd: float) -> Plane:
        return np.clip(rng.standard_normal((n, 1, 1), dtype=np.float32), -2.5, 2.5) * np.float32(sd)

    at = pixel_points(size, scale=1 + vary(0.03), right=vary(0.015), down=vary(0.015))
    hip = _Hip(
        at=at,
        displacement=shown_parameter(displacement, **DISPLACEMENT),
        density=shown_parameter(bone_loss, **DENSITY),
        softness=max(1.2 / size, 0.008),
    )
    attenuation = _soft_tissue(hip, build=vary(0.03)) + hip.density * (
        _pelvis(hip) + _head(hip) + _distal_fragment(hip)
    )
    gray = 1 - np.exp(-attenuation * (1 + vary(0.04)))
    grain = rng.standard_normal((n, size, size), dtype=np.float32) * np.float32(0.018)
    picture: Plane = np.clip(gray + grain, 0, 1)
    return picture


def shown_parameter(shown: Vector, *, start: float, per_sd: float, low: float, high: float) -> Plane:
    """The drawn parameter [patient, 1, 1] for what a modality shows of its cause."""
    return np.clip(start + per_sd * shown, low, high)[:, None, None].astype(np.float32)


def _soft_tissue(hip: _Hip, *, build: Plane) -> Plane:
    at = hip.at
    skin = 0.085 - build + 0.10 * (at.y - 0.45) ** 2 - at.x
    between_legs = capsule(at, start=(1.02, 0.90), end=(0.93, 1.3), radii=(0.02, 0.10))
    thigh = fill(skin, softness=0.03) * (1 - 0.8 * fill(between_legs, softness=0.05))
    deep = ramp(at.x, start=0.05, end=0.55) * (0.6 + 0.4 * ramp(-at.y, start=-1.0, end=-0.2))
    return thigh * (0.16 + 0.16 * deep)


def _bone(hip: _Hip, shape: Plane, *, cortex: Plane, spongy: Plane | float, hard: float) -> Plane:
    return spongy * fill(shape, softness=hip.softness) + hard * rim(shape, thickness=cortex, softness=hip.softness)


def _pelvis(hip: _Hip) -> Plane:
    at = hip.at
    wing = ellipse(at, centre=(0.93, 0.03), radii=(0.33, 0.27), turn=0.5)
    roof = merge(wing, capsule(at, start=(0.62, 0.20), end=(0.80, 0.30), radii=(0.035, 0.06)), blend=0.05)
    posterior = capsule(at, start=(0.80, 0.30), end=(0.775, 0.52), radii=(0.06, 0.045))
    pubis = capsule(at, start=(0.79, 0.46), end=(1.05, 0.56), radii=(0.040, 0.035))
    ischium = capsule(at, start=(0.775, 0.52), end=(0.815, 0.74), radii=(0.05, 0.055))
    ramus = capsule(at, start=(0.815, 0.74), end=(1.05, 0.64), radii=(0.04, 0.03))
    bone = merge(roof, posterior, pubis, ischium, ramus, blend=0.03)
    bone = np.maximum(bone, -ellipse(at, centre=_HEAD, radii=(0.150, 0.150)))  # the socket
    thin = 0.014 * np.clip(hip.density, 0.5, 1.4)
    return _bone(hip, bone, cortex=thin, spongy=0.38, hard=0.32)


def _head(hip: _Hip) -> Plane:
    at = hip.at
    head = ellipse(at, centre=_HEAD, radii=(0.128, 0.128))
    stump = np.maximum(_neck(at), half_plane(at, through=_BREAK, towards=_AXIS))
    thin = 0.013 * np.clip(hip.density, 0.5, 1.4)
    return _bone(hip, merge(head, stump, blend=0.02), cortex=thin, spongy=0.62, hard=0.30)


def _neck(at: PixelGrid) -> Plane:
    return capsule(at, start=_HEAD, end=_NECK_END, radii=(0.078, 0.090))


def _distal_fragment(hip: _Hip) -> Plane:
    """Neck base, trochanters and shaft: up by the displacement, a little outwards, tilted into varus; a gap opens."""
    step = hip.displacement
    at = hip.at.moved(right=-0.25 * step - 0.004, down=-step, turn=0.7 * step, about=_NECK_END)
    base = np.maximum(_neck(at), -half_plane(at, through=_BREAK, towards=_AXIS))
    trochanter = ellipse(at, centre=(0.315, 0.500), radii=(0.072, 0.105), turn=-0.25)
    shaft = capsule(at, start=(0.355, 0.600), end=(0.375, 1.600), radii=(0.090, 0.075))
    lesser = ellipse(at, centre=(0.450, 0.655), radii=(0.038, 0.052), turn=-0.4)
    bone = merge(base, trochanter, shaft, lesser, blend=0.025)
    below = ramp(at.y, start=0.55, end=0.80)  # spongy above, a hollow tube below
    cortex = (0.012 + 0.024 * below) * np.clip(hip.density, 0.4, 1.5)
    return _bone(hip, bone, cortex=cortex, spongy=0.60 - 0.28 * below, hard=0.55)
