"""Players inside a series: groups of its cells that switch from one recording to another.

A cell is one channel at one time, its value and whether it was measured together: a mixed recording is one that a
patient could have. The time since the last measurement is derived from the mixture anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from shared_model.model.encoders import SeriesEncoder
from shared_model.model.encoders.series import summarise_channels, time_since_measured
from shared_model.shapley.coalitions import coalition_members, shapley_matrix
from shared_model.shapley.game import ModalityGame
from shared_model.shapley.owen import Prefixes


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
    """Players that own a segment of time of one channel each; a prefix is the contribution of a mixed recording.

    Most of what the cells do passes through the encoder's summaries of each channel, where a minimum jumps as its cell
    switches: many orders would be needed to average that out. But a summary sees one channel only, so the Shapley
    values of g_m's linear part in the summaries are known from the 2^n_segments mixtures of each channel. They are the
    control function of the sampler: what is sampled is the LSTM's state and the head's curvature.
    """

    def __init__(
        self, game: ModalityGame, encoder: SeriesEncoder, *, start: Recordings, end: Recordings, n_segments: int
    ) -> None:
        """Players from start to end.

        Args:
            game: of the series.
            encoder: of the series, in float64 and eval mode.
            start: a recording for each background row.
            end: likewise, what they turn into.
            n_segments: of time; player s * n_channels + c is channel c in segment s.
        """
        self._game, self._encoder = game, encoder
        self._start, self._end = start, end
        n_steps, self._n_channels = start.values.shape[1:]
        self._segment = segment_of_step(n_steps=n_steps, n_segments=n_segments).to(start.values.device)
        self._slope = self._slope_in_summaries()

    @property
    def n_players(self) -> int:
        """Segments times channels."""
        return (int(self._segment.max()) + 1) * self._n_channels

    @torch.no_grad()
    def prefixes(self, rows: Tensor, orders: Int64[Tensor, "background player"]) -> Prefixes:
        """Contributions of the mixtures in each row's order."""
        rank = orders.argsort(dim=1)
        points = torch.arange(self.n_players + 1, device=orders.device).view(1, -1, 1)
        switched = rank.unsqueeze(1) < points  # (background, point, player)
        by_segment = switched.reshape(*switched.shape[:2], -1, self._n_channels)
        mixed = self._mix(rows, by_segment[:, :, self._segment])
        embedding = self._encoder(mixed.inputs()).reshape(*switched.shape[:2], -1)
        summaries = embedding[:, :, self._encoder.hidden :]
        control = torch.einsum("bps,bs->bp", summaries, self._slope[rows])
        return Prefixes(self._game.game.contribution(self._game.name, embedding), control)

    @torch.no_grad()
    def known_values(self, rows: Tensor) -> Float64[Tensor, "background player"]:
        """Exact values of the linear part in the summaries: each channel is a game of its segments."""
        if not self._encoder.n_summaries:
            return self._slope.new_zeros(len(rows), self.n_players)
        n_segments = self.n_players // self._n_channels
        members = torch.from_numpy(coalition_members(n_segments)).to(rows.device) == 1  # (coalition, segment)
        cells = members[:, self._segment, None].expand(-1, -1, self._n_channels)
        mixed = self._mix(rows, cells.expand(len(rows), *cells.shape))
        summaries = summarise_channels(mixed.values, mixed.measured).reshape(len(rows), len(members), -1)
        terms = (summaries * self._slope[rows].unsqueeze(1)).reshape(*summaries.shape[:2], -1, self._n_channels)
        matrix = torch.from_numpy(shapley_matrix(n_segments)).to(terms)
        return torch.einsum("sm,bmkc->bsc", matrix, terms).flatten(1)

    def _mix(self, rows: Tensor, switched: Bool[Tensor, "background point time channel"]) -> Recordings:
        """Each row's recording with the switched cells of the other one, one after the other."""
        start, end = self._start.select(rows), self._end.select(rows)
        return Recordings(
            torch.where(switched, end.values.unsqueeze(1), start.values.unsqueeze(1)).flatten(0, 1),
            torch.where(switched, end.measured.unsqueeze(1), start.measured.unsqueeze(1)).flatten(0, 1),
        )

    def _slope_in_summaries(self) -> Float64[Tensor, "background summary"]:
        """Gradient of g_m in the summaries, half way between reference and patient."""
        with torch.enable_grad():
            middle = ((self._game.reference + self._game.own) / 2).requires_grad_()
            (gradient,) = torch.autograd.grad(self._game(middle.unsqueeze(1)).sum(), middle)
        return gradient @ self._game.game.projection(self._game.name)[:, self._encoder.hidden :]


def segment_of_step(*, n_steps: int, n_segments: int) -> Int64[Tensor, "time"]:
    """Segment of each step, segments as equal as the grid allows and never more than steps."""
    return torch.arange(n_steps) * min(n_segments, n_steps) // n_steps
