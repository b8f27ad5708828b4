"""Modalities that enter the fusion directly: static variables and events."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from shared_model.modalities.static import FEW_LEVELS


class StaticEncoder(nn.Module):
    """Numbers pass through; each categorical column is looked up in an embedding with one more row for "missing".

    With at most `FEW_LEVELS` levels the embedding starts as one column a level (and zero where missing), so that a
    linear head on an untrained encoder is the usual regression; with more it starts at random.
    """

    def __init__(self, *, n_numbers: int, n_levels: Sequence[int]) -> None:
        """Tables of n columns for n levels, or of `FEW_LEVELS` if there are more.

        Args:
            n_numbers: inputs per patient that pass through (value and missing flag of each column).
            n_levels: levels of each categorical column, without "missing".
        """
        super().__init__()
        self.tables = nn.ModuleList(_level_table(n) for n in n_levels)
        self.width = n_numbers + sum(min(FEW_LEVELS, n) for n in n_levels)

    def forward(
        self, numbers: Float[Tensor, "batch number"], levels: Int64[Tensor, "batch category"]
    ) -> Float[Tensor, "batch {self.width}"]:
        """Numbers followed by the embedding of each category."""
        looked_up = [table(levels[:, i]) for i, table in enumerate(self.tables)]
        return torch.cat([numbers, *looked_up], dim=1)


def _level_table(n_levels: int) -> nn.Embedding:
    table = nn.Embedding(n_levels + 1, min(FEW_LEVELS, n_levels))
    if n_levels > FEW_LEVELS:
        nn.init.normal_(table.weight, std=FEW_LEVELS**-0.5)
    else:
        with torch.no_grad():
            table.weight.copy_(torch.eye(n_levels + 1, n_levels))
    return table


class EventsEncoder(nn.Module):
    """The standardised aggregate of each item, as it is."""

    def __init__(self, *, n_items: int) -> None:
        super().__init__()
        self.width = n_items

    def forward(self, items: Float[Tensor, "batch item"]) -> Float[Tensor, "batch item"]:
        """The input itself."""
        return items
