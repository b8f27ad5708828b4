"""Integrated gradients of g_m along the values of a series: an attribution to each time and channel.

The path keeps which cells were measured, because the encoder's summaries jump where a cell appears: no gradient sees a
jump. What the pattern of measurement itself does is shared out over the channels by switching (segments.py).

Source: Sundararajan, Taly and Yan 2017; as a path from the reference's embedding to the patient's it is the chain rule
of van de Beld et al. 2024 without its division by the difference of embeddings.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from shared_model.model.encoders import SeriesEncoder
from shared_model.shapley.game import ModalityGame
from shared_model.shapley.segments import Recordings

FIRST_POINTS, MOST_POINTS = 16, 256
RESIDUAL_TOLERANCE = 0.01


@dataclass(frozen=True)
class PathValues:
    """Attribution of a difference of g_m to cells.

    Attributes:
        cells: mean over background rows; 0 where the patient was not measured.
        residual: mean over rows of |sum of cells - difference of g_m|, over the mean |difference|; 0 if none differs.
        points: on the path.
    """

    cells: Float64[Tensor, "time channel"]
    residual: float
    points: int


def integrated_gradients(
    game: ModalityGame,
    encoder: SeriesEncoder,
    *,
    start: Recordings,
    end: Recordings,
) -> PathValues:
    """Integrated gradients by the midpoint rule, the points doubled until the residual is below RESIDUAL_TOLERANCE.

    Args:
        game: g_m against the background rows.
        encoder: in float64 and eval mode.
        start: for each background row, where the path begins; measured in the same cells as `end`.
        end: for each background row, where it ends.
    """
    step = end.values - start.values
    difference = _g(game, encoder, end) - _g(game, encoder, start)
    scale = float(difference.abs().mean())
    points = FIRST_POINTS
    while True:
        rows = step * _mean_gradient(game, encoder, start, step, points)
        gap = float((rows.sum(dim=(1, 2)) - difference).abs().mean())
        residual = gap / scale if scale else 0.0
        if residual <= RESIDUAL_TOLERANCE or points >= MOST_POINTS:
            return PathValues(rows.mean(dim=0), residual, points)
        points *= 2


@torch.no_grad()
def _g(game: ModalityGame, encoder: SeriesEncoder, recordings: Recordings) -> Float64[Tensor, "background"]:
    return game.of_embedding(encoder(recordings.inputs()))


def _mean_gradient(
    game: ModalityGame,
    encoder: SeriesEncoder,
    start: Recordings,
    step: Float64[Tensor, "background time channel"],
    points: int,
) -> Float64[Tensor, "background time channel"]:
    total = torch.zeros_like(step)
    # In eval mode cuDNN's LSTM has no backward pass.
    with torch.backends.cudnn.flags(enabled=False):
        for k in range(points):
            values = (start.values + (k + 0.5) / points * step).requires_grad_()
            g = game.of_embedding(encoder(Recordings(values, start.measured).inputs()))
            (gradient,) = torch.autograd.grad(g.sum(), values)
            total += gradient
    return total / points
