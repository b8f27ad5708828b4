"""Modalities that enter the fusion directly: static variables and events."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


class StaticEncoder(nn.Module):
    """Numbers pass through; each categorical column is looked up in an embedding with one more row for "missing"."""

    def __init__(self, *, n_numbers: int, n_levels: Sequence[int]) -> None:
        """Tables of `min(8, n // 2 + 1)` columns for n levels.

        Args:
            n_numbers: inputs per patient that pass through (value and missing flag of each column).
            n_levels: levels of each categorical column, without "missing".
        """
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n + 1, min(8, n // 2 + 1)) for n in n_levels)
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.1)  # type: ignore[arg-type]
        self.width = n_numbers + sum(min(8, n // 2 + 1) for n in n_levels)

    def forward(
        self, numbers: Float[Tensor, "batch number"], levels: Int64[Tensor, "batch category"]
    ) -> Float[Tensor, "batch {self.width}"]:
        """Numbers followed by the embedding of each category."""
        looked_up = [table(levels[:, i]) for i, table in enumerate(self.tables)]
        return torch.cat([numbers, *looked_up], dim=1)


class EventsEncoder(nn.Module):
    """The standardised aggregate of each item, as it is."""

    def __init__(self, *, n_items: int) -> None:
        super().__init__()
        self.width = n_items

    def forward(self, items: Float[Tensor, "batch item"]) -> Float[Tensor, "batch item"]:
        """The input itself."""
        return items
