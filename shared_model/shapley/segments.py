"""Players inside a series: groups of its cells that switch from one recording to another.

A cell is one channel at one time, its value and whether it was measured together: a mixed recording is one that a
patient could have. The time since the last measurement is derived from the mixture anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from shared_model.encoders import SeriesEncoder
from shared_model.encoders.series import time_since_measured
from shared_model.shapley.game import ModalityGame


@dataclass(frozen=True)
class Recordings:
    """Some recordings on the grid, as the encoder takes them, without what is derived.

    Attributes:
        values: standardised; 0 where not measured.
        measured: whether the cell was measured.
    """

    values: Float[Tensor, "recording time channel"]
    measured: Bool[Tensor, "recording time channel"]

    @classmethod
    def from_inputs(cls, inputs: Float[Tensor, "recording time input"]) -> Recordings:
        """From the encoder's inputs, in float64."""
        values, measured, _ = inputs.double().chunk(3, dim=2)
        return cls(values, measured > 0.5)

    def inputs(self) -> Float64[Tensor, "recording time input"]:
        """What the encoder takes."""
        return torch.cat([self.values, self.measured.double(), time_since_measured(self.measured).double()], dim=2)

    def select(self, rows: Tensor) -> Recordings:
        """Some of the recordings."""
        return Recordings(self.values[rows], self.measured[rows])

    def expand(self, n: int) -> Recordings:
        """One recording n times."""
        return Recordings(self.values.expand(n, -1, -1), self.measured.expand(n, -1, -1))


def with_pattern_of(reference: Recordings, patient: Recordings) -> Recordings:
    """The references' values in the patient's cells: what was measured of the patient, as the references were.

    A cell that a reference lacks gets 0, the cohort's mean. Between a reference and this lies the effect of which cells
    were measured; between this and the patient lies the effect of the values.
    """
    both = reference.measured & patient.measured
    return Recordings(reference.values.where(both, 0.0), patient.measured.expand_as(reference.measured))


class SwitchedCells:
    """Players that own cells of a recording; a prefix is the contribution of a mixture of two recordings."""

    def __init__(
        self,
        game: ModalityGame,
        encoder: SeriesEncoder,
        *,
        start: Recordings,
        end: Recordings,
        player_of_cell: Int64[Tensor, "time channel"],
    ) -> None:
        """Players from start to end.

        Args:
            game: of the series.
            encoder: of the series, in float64 and eval mode.
            start: a recording for each background row.
            end: likewise, what they turn into.
            player_of_cell: index of each cell's player, 0..n_players - 1.
        """
        self._game, self._encoder = game, encoder
        self._start, self._end, self._player = start, end, player_of_cell

    @property
    def n_players(self) -> int:
        """Number of groups of cells."""
        return int(self._player.max()) + 1

    @torch.no_grad()
    def prefixes(
        self, rows: Tensor, orders: Int64[Tensor, "background player"]
    ) -> Float64[Tensor, "background point part"]:
        """Contributions of the mixtures in each row's order."""
        rank = orders.argsort(dim=1)
        points = torch.arange(self.n_players + 1, device=orders.device).view(1, -1, 1)
        switched = (rank.unsqueeze(1) < points)[:, :, self._player]  # (background, point, time, channel)
        start, end = self._start.select(rows), self._end.select(rows)
        mixed = Recordings(
            torch.where(switched, end.values.unsqueeze(1), start.values.unsqueeze(1)).flatten(0, 1),
            torch.where(switched, end.measured.unsqueeze(1), start.measured.unsqueeze(1)).flatten(0, 1),
        )
        contribution = self._game.game.contribution(self._game.name, self._encoder(mixed.inputs()))
        return contribution.reshape(*switched.shape[:2], -1)


def segment_players(*, n_steps: int, n_channels: int, n_segments: int) -> Int64[Tensor, "time channel"]:
    """Player of each cell: channel by segment of time, segments as equal as the grid allows."""
    segment = torch.arange(n_steps) * min(n_segments, n_steps) // n_steps
    return segment.unsqueeze(1) * n_channels + torch.arange(n_channels)


def channel_players(*, n_steps: int, n_channels: int) -> Int64[Tensor, "time channel"]:
    """Player of each cell: its channel."""
    return torch.arange(n_channels).expand(n_steps, n_channels)
