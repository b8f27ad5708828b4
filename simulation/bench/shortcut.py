"""Scenario `shortcut`: does the explanation show the hospital and the place of the marker?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from client.patient.case import open_case
from client.patient.details import compare
from shared_model.model.encoders import ImageEncoder
from shared_model.shapley.pixels import pixel_values
from simulation.cohort.truth import parse_truth
from simulation.finished.explained import ExplainedSite

IMAGE = "hip"
MOST_PATIENTS = 30
REFERENCES = 10
WHITE = 0.99  # of the brightest gray: the marker is white


def find_shortcut(cohort: Path, explained: Sequence[ExplainedSite]) -> dict[str, Any]:
    """Signs of the marker in the explanation.

    Returns:
        `hospital`: the image's share at the marked hospital and at each other; whether it is the largest there.
        `marked`: mean value of the image for patients with and without the marker, at that hospital.
        `region`: mean |attribution| of a pixel inside the marker over that outside, for patients with it, and the rank
        of the marker's box among all boxes of its size (1 = largest).
    """
    changes = parse_truth((cohort / "truth.json").read_text(encoding="utf-8"), source=str(cohort)).changes
    box = changes["box_pixels"]
    place = (slice(box["top"], box["bottom"]), slice(box["left"], box["right"]))
    index = explained[0].found.modalities.index(IMAGE)
    shares = {one.site.name: _share(one.found.phi, index) for one in explained}
    affected = next(one for one in explained if one.site.name == changes["hospital"])
    marked = _marked(affected, place)
    phi = affected.found.phi[:, index]
    return {
        "hospital": {
            "affected": changes["hospital"],
            "hip_share": shares,
            "largest_there": max(shares, key=lambda name: shares[name]) == changes["hospital"],
        },
        "marked": {
            "patients": int(marked.sum()),
            "mean_phi_with": float(phi[marked].mean()) if marked.any() else None,
            "mean_phi_without": float(phi[~marked].mean()) if (~marked).any() else None,
        },
        "region": _region(affected, marked, place),
    }


def _share(phi: Float64[np.ndarray, "patient modality"], index: int) -> float:
    size = np.abs(phi).sum(axis=0)
    return float(size[index] / size.sum())


def _marked(one: ExplainedSite, place: tuple[slice, slice]) -> np.ndarray:
    """True where the marker's box of a test patient's image is white all over."""
    images = one.site.patients.raw[IMAGE]
    present = one.site.patients.present[IMAGE]
    return np.array([bool(present[row] and images[row][place].min() > WHITE * images[row].max()) for row in one.rows])


def _region(one: ExplainedSite, marked: np.ndarray, place: tuple[slice, slice]) -> dict[str, Any] | None:
    """Where the attribution lies in the images of marked patients; None without such patients."""
    chosen = np.flatnonzero(marked)[:MOST_PATIENTS]
    maps = [found for patient in chosen if (found := _map(one, one.patient_ids[patient])) is not None]
    if not maps:
        return None
    mean = np.mean(maps, axis=0)
    inside = np.zeros(mean.shape, dtype=bool)
    inside[place] = True
    sums = _box_sums(mean, height=place[0].stop - place[0].start, width=place[1].stop - place[1].start)
    own = sums[place[0].start, place[1].start]
    return {
        "images": len(maps),
        "inside_over_outside": float(mean[inside].mean() / mean[~inside].mean()),
        "rank": int((sums > own).sum()) + 1,
        "boxes": int(sums.size),
    }


def _map(one: ExplainedSite, patient_id: str) -> Float64[np.ndarray, "height width"] | None:
    case = open_case(one.run, one.site, patient_id)
    compared = compare(case, IMAGE, n=REFERENCES)
    encoder = one.run.model.encoders[IMAGE]
    if compared is None or not isinstance(encoder, ImageEncoder):
        return None
    found = pixel_values(
        compared.game,
        encoder,
        image=case.own_batch.inputs[IMAGE][0],
        references=case.batch(compared.rows).inputs[IMAGE],
    )
    return np.asarray(torch.abs(found.pixels).cpu().numpy())


def _box_sums(
    values: Float64[np.ndarray, "height width"], *, height: int, width: int
) -> Float64[np.ndarray, "top left"]:
    """Sum over every box of this size, by the place of its upper left corner."""
    windows = np.lib.stride_tricks.sliding_window_view(values, (height, width))
    return np.asarray(windows.sum(axis=(2, 3)))
