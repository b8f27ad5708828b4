"""Attribution inside a patient's images and series, against recordings of the hospital's other patients."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from client.patient.case import Case
from shared_model.errors import StudyError
from shared_model.model.encoders import ImageEncoder, SeriesEncoder
from shared_model.shapley.game import ModalityGame
from shared_model.shapley.owen import OwenValues, owen_values
from shared_model.shapley.paths import integrated_gradients
from shared_model.shapley.pixels import pixel_values
from shared_model.shapley.segments import (
    Recordings,
    SwitchedCells,
    segment_of_step,
    with_pattern_of,
)

N_SEGMENTS = 6
SEGMENT_ROUNDS = 8


@dataclass(frozen=True)
class Compared:
    """A modality's game against a few recordings, chosen so that they stand for all.

    Attributes:
        game: against the chosen rows only.
        rows: of the hospital's arrays.
        phi: exact value of the modality against the whole background.
        phi_having: the same against the rows that have the modality; only against these can it be shared out.
        subset_gap: mean over the chosen rows less phi_having; known exactly. What is shown inside the modality sums to
            `phi_having + subset_gap`.
    """

    game: ModalityGame
    rows: np.ndarray
    phi: float
    phi_having: float
    subset_gap: float

    def describe(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "references": len(self.rows),
            "phi": self.phi,
            "phi_having": self.phi_having,
            "subset_gap": self.subset_gap,
        }


def compare(case: Case, name: str, *, n: int) -> Compared | None:
    """Choose n background rows, at equally spaced ranks of the modality's value against them; None if none has it."""
    if case.local is None:
        return None
    modality = case.modality_game(name, case.local)
    values = modality.values()
    having = torch.nonzero(modality.both_present).squeeze(1)
    if not len(having):
        return None
    ranked = having[values[having].argsort(stable=True)]
    n = min(n, len(ranked))
    chosen = ranked[((torch.arange(n) + 0.5) * len(ranked) / n).long()]
    return Compared(
        game=modality.select(chosen),
        rows=case.local_rows[chosen.cpu().numpy()],
        phi=float(values.mean()),
        phi_having=float(values[having].mean()),
        subset_gap=float(values[chosen].mean() - values[having].mean()),
    )


def describe_images(case: Case, *, n: int) -> dict[str, Any]:
    """Pixel attributions of each image that the patient has, against those of n others."""
    described: dict[str, Any] = {}
    for name, encoder in case.run.model.encoders.items():
        if not isinstance(encoder, ImageEncoder) or not case.has(name):
            continue
        compared = compare(case, name, n=n)
        if compared is None:
            described[name] = {"unavailable": "no other patient of this hospital has this image"}
            continue
        try:
            found = pixel_values(
                compared.game,
                encoder,
                image=case.own_batch.inputs[name][0],
                references=case.batch(compared.rows).inputs[name],
            )
        except StudyError as error:
            described[name] = {"unavailable": str(error)}
            continue
        described[name] = {
            **compared.describe(),
            "method": "DeepLIFT rescale with exact Shapley values at the fusion",
            "residual": found.residual,
            "pixels": _rounded(found.pixels),
        }
    return described


def describe_series(case: Case, *, n: int) -> dict[str, Any]:
    """Attributions along time of each series that the patient has, against those of n others."""
    described: dict[str, Any] = {}
    for name, encoder in case.run.model.encoders.items():
        if not isinstance(encoder, SeriesEncoder) or not case.has(name):
            continue
        compared = compare(case, name, n=n)
        if compared is None:
            described[name] = {"unavailable": "no other patient of this hospital has this series"}
            continue
        exact = copy.deepcopy(encoder).double().eval()
        described[name] = compared.describe() | _describe_recording(case, compared, name, exact)
    return described


def _describe_recording(case: Case, compared: Compared, name: str, encoder: SeriesEncoder) -> dict[str, Any]:
    series = case.site.schema.series[name]
    batch = case.batch(compared.rows)
    references = Recordings.from_inputs(batch.inputs[name])
    own = Recordings.from_inputs(case.own_batch.inputs[name]).expand(len(references.values))
    patterned = with_pattern_of(references, own)
    rng = case.rng(name, "segments")
    segments = SwitchedCells(compared.game, encoder, start=references, end=own, n_segments=N_SEGMENTS)
    by_segment = owen_values(compared.game, segments, rng=rng, max_rounds=SEGMENT_ROUNDS)
    with torch.no_grad():
        halfway = case.game.contribution(name, encoder(patterned.inputs()))
    pattern_game = replace(compared.game, own=halfway)
    channels = SwitchedCells(pattern_game, encoder, start=references, end=patterned, n_segments=1)
    by_channel = owen_values(pattern_game, channels, rng=rng, max_rounds=SEGMENT_ROUNDS)
    path = integrated_gradients(compared.game, encoder, start=patterned, end=own)
    raw = case.site.patients.raw[name][case.row]
    return {
        "time_unit": series.time_unit,
        "time": [series.start + series.step * k for k in range(series.steps)],
        "channels": [{"name": channel.name, "unit": channel.unit} for channel in series.channels],
        "measured": [[None if np.isnan(value) else float(value) for value in row] for row in raw],
        "cells": {
            "method": "integrated gradients of the values, which cells were measured kept",
            "phi": _rounded(path.cells),
            "residual": path.residual,
            "points": path.points,
        },
        "pattern": {
            "method": "Owen values of which cells were measured, by channel",
            "phi": by_channel.phi.tolist(),
            "se": by_channel.se.tolist(),
        },
        "segments": _describe_segments(by_segment, n_steps=series.steps, n_channels=len(series.channels)),
    }


def _describe_segments(values: OwenValues, *, n_steps: int, n_channels: int) -> dict[str, Any]:
    """Owen values by segment of time and channel."""
    segment = segment_of_step(n_steps=n_steps, n_segments=N_SEGMENTS)
    starts = [int(torch.nonzero(segment == s)[0]) for s in range(int(segment.max()) + 1)]
    return {
        "method": "Owen values of segments of time by channel, values and gaps together",
        "first_steps": starts,
        "phi": values.phi.reshape(len(starts), n_channels).tolist(),
        "se": values.se.reshape(len(starts), n_channels).tolist(),
        "orders": values.orders,
    }


def _rounded(values: Float64[Tensor, "row column"]) -> list[list[float]]:
    """Six significant digits: enough for a picture, a third of the bytes."""
    return [[float(f"{value:.6g}") for value in row] for row in values.cpu().numpy()]
