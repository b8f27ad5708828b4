"""Owen values: a modality's exact Shapley value, shared out over the features inside it.

The features are players of g_m (game.py), each taken from the patient or from the background row. Their Shapley values
are estimated over random orders, each with its reverse (antithetic pairs). Every background row gets orders of its own,
so within one round the orders vary as much as there are rows, and the sum over features is exact against each row and
so in the mean. Rounds are repeated until the standard error is small; it is computed from the differences between
rounds against the same row, so the spread between background rows, which is no error, does not enter.

Sources: Owen 1977; Castro, Gomez and Tejada 2009 (sampling orders); Mitchell et al. 2022, JMLR 23:43 (antithetic).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from shared_model.shapley.game import ModalityGame

_CHUNK = 2**20  # numbers in the largest intermediate array: 8 MB


@dataclass(frozen=True)
class Prefixes:
    """Partly switched modalities.

    Attributes:
        contribution: to the fusion.
        control: a function of the players that is near g_m and whose Shapley values are known; only the difference is
            sampled. 0 where there is none.
    """

    contribution: Float64[Tensor, "background point part"]
    control: Float64[Tensor, "background point"]


@runtime_checkable
class InnerPlayers(Protocol):
    """What is inside a modality, as players that switch one after the other from background to patient."""

    @property
    def n_players(self) -> int:
        """How many."""

    def prefixes(self, rows: Tensor, orders: Int64[Tensor, "background player"]) -> Prefixes:
        """What stands after 0, 1, ..., n_players of them have switched.

        Args:
            rows: indices of background rows that have the modality.
            orders: for each of these rows, the players in the order in which they switch.
        """

    def known_values(self, rows: Tensor) -> Float64[Tensor, "background player"]:
        """Exact Shapley values of the control function, of every player against each of these rows."""


class ColumnGroups:
    """Players that own columns of the embedding: their contributions add up, so a prefix is a running sum."""

    def __init__(
        self,
        groups: Sequence[Sequence[int]],
        *,
        projection: Float64[Tensor, "part width"],
        own: Float64[Tensor, "width"],
        reference: Float64[Tensor, "background width"],
        start: Float64[Tensor, "background part"],
    ) -> None:
        """Contribution of each group's change.

        Args:
            groups: columns of each player; together all columns, each once.
            projection: from the modality's embedding to its contribution.
            own: the patient's embedding.
            reference: each background row's embedding.
            start: each background row's contribution.
        """
        change = own - reference
        self._start = start
        self._steps = torch.stack(
            [change[:, list(columns)] @ projection[:, list(columns)].T for columns in groups], dim=1
        )  # (background, player, part)

    @property
    def n_players(self) -> int:
        """Number of groups."""
        return int(self._steps.shape[1])

    def prefixes(self, rows: Tensor, orders: Int64[Tensor, "background player"]) -> Prefixes:
        """Running sums of the steps in each row's order."""
        steps = self._steps[rows]
        ordered = torch.gather(steps, 1, orders.unsqueeze(2).expand_as(steps))
        start = self._start[rows].unsqueeze(1)
        contribution = torch.cat([start, start + ordered.cumsum(dim=1)], dim=1)
        return Prefixes(contribution, contribution.new_zeros(contribution.shape[:2]))

    def known_values(self, rows: Tensor) -> Float64[Tensor, "background player"]:
        """No control function."""
        return self._start.new_zeros(len(rows), self.n_players)


@dataclass(frozen=True)
class OwenValues:
    """Feature values of one modality of one patient.

    Attributes:
        phi: estimate of each feature's value; with `presence` it sums to the modality's exact value.
        presence: the part of the modality's value that comes from background rows where patient and row do not both
            have the modality: the effect of having or lacking it at all. Exact.
        se: standard error of phi from the sampled orders.
        orders: orders drawn for each background row.
    """

    phi: Float64[np.ndarray, "feature"]
    presence: float
    se: Float64[np.ndarray, "feature"]
    orders: int


@torch.no_grad()
def owen_values(
    game: ModalityGame,
    players: InnerPlayers,
    *,
    rng: np.random.Generator,
    tolerance: float = 0.01,
    min_rounds: int = 2,
    max_rounds: int = 32,
) -> OwenValues:
    """Share out g_m over the players inside m.

    Args:
        game: of the patient and modality.
        players: features of the modality.
        rng: draws the orders.
        tolerance: stop when the largest standard error is at most this fraction of the mean |phi|.
        min_rounds: fewest rounds; with 1 the standard error cannot be estimated and is NaN.
        max_rounds: most rounds, reached or not; `se` then says what was achieved.
    """
    exact = game.values()
    rows = torch.nonzero(game.both_present).squeeze(1)
    presence = float(exact[~game.both_present].sum()) / len(exact)
    n = players.n_players
    if not len(rows) or n == 1:
        phi = np.array([float(exact[rows].sum()) / len(exact)] if n == 1 else [0.0] * n)
        return OwenValues(phi, presence, np.zeros(n), 0)
    total = square = torch.zeros(len(rows), n, dtype=exact.dtype, device=exact.device)
    rounds = 0
    known = players.known_values(rows)
    phi, se = np.zeros(n), np.full(n, np.nan)
    while rounds < max_rounds:
        values = _one_round(game, players, rows, rng)
        total, square, rounds = total + values, square + values.square(), rounds + 1
        phi = ((known + total / rounds).sum(dim=0) / len(exact)).cpu().numpy()
        if rounds > 1:
            spread = (square - total.square() / rounds).clamp(min=0.0) / (rounds - 1)  # of one round, per row
            se = (spread.sum(dim=0) / rounds).sqrt().cpu().numpy() / len(exact)
        if rounds >= min_rounds and not np.any(se > tolerance * np.abs(phi).mean()):
            break
    return OwenValues(phi, presence, se, 2 * rounds)


def _one_round(
    game: ModalityGame, players: InnerPlayers, rows: Tensor, rng: np.random.Generator
) -> Float64[Tensor, "row feature"]:
    """Marginal contributions beyond the control's along one random order and its reverse for each row, averaged."""
    n = players.n_players
    drawn = torch.from_numpy(rng.permuted(np.tile(np.arange(n), (len(rows), 1)), axis=1)).to(rows.device)
    n_coalitions, n_parts = game.others.shape[1:]
    n_chunk = max(1, _CHUNK // ((n + 1) * n_coalitions * max(n_parts, game.game.widest)))
    chunks = []
    for i in range(0, len(rows), n_chunk):
        chosen, order = rows[i : i + n_chunk], drawn[i : i + n_chunk]
        subgame = game.select(chosen)
        values = torch.zeros(len(chosen), n, dtype=game.own.dtype, device=rows.device)
        for orders in (order, order.flip(1)):
            prefixes = players.prefixes(chosen, orders)
            steps = subgame(prefixes.contribution) - prefixes.control
            values.scatter_add_(1, orders, steps.diff(dim=1))
        chunks.append(values / 2)
    return torch.cat(chunks)
