"""Heads: the read-out of early fusion, and the weights of late fusion."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class FusionHead(nn.Module):
    """Linear short cut plus a multilayer perceptron; both see the concatenated embeddings.

    Both output layers start at zero, so training starts from the base rate and not from a random ranking.
    """

    def __init__(self, *, width: int, hidden: tuple[int, ...], norm: str, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        layers: list[nn.Module] = []
        for n_in, n_out in zip((width, *hidden), hidden, strict=False):
            layers.append(nn.Linear(n_in, n_out))
            if norm == "layer":
                layers.append(nn.LayerNorm(n_out))
            layers.append(nn.ReLU())
            if dropout:
                layers.append(nn.Dropout(dropout))
        if hidden:
            last = nn.Linear(hidden[-1], 1)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            layers.append(last)
        self.perceptron = nn.Sequential(*layers)

    def forward(self, fused: Float[Tensor, "batch width"]) -> Float[Tensor, "batch"]:
        """Logit of each row."""
        logit: Tensor = self.linear(fused).squeeze(1)
        if len(self.perceptron):
            logit = logit + self.perceptron(fused).squeeze(1)
        return logit

    def first_weight(self) -> Float[Tensor, "part width"]:
        """Weights of all that sees the input: the short cut's row, then the rows of the first hidden layer."""
        hidden = [layer.weight for layer in self.perceptron[:1]]
        return torch.cat([self.linear.weight, *hidden])  # type: ignore[list-item]

    def read_out(self, total: Float[Tensor, "*row part"]) -> Float[Tensor, "*row"]:
        """Logit of the first layer's output without its bias: `read_out(fused @ first_weight.T)` equals `forward`."""
        logit: Tensor = total[..., 0] + self.linear.bias
        if len(self.perceptron):
            bias: Tensor = self.perceptron[0].bias  # type: ignore[assignment]
            first = total[..., 1:] + bias
            logit = logit + self.perceptron[1:](first).squeeze(-1)
        return logit


class LateFusionWeights(nn.Module):
    """One learned positive weight a modality, equal at the start."""

    def __init__(self, n_modalities: int) -> None:
        super().__init__()
        self.log_weights = nn.Parameter(torch.zeros(n_modalities))

    def forward(
        self, logits: Float[Tensor, "batch modality"], here: Bool[Tensor, "batch modality"]
    ) -> Float[Tensor, "batch"]:
        """Weighted mean of each row over the modalities that are here."""
        weights = self.log_weights.exp() * here
        return (weights * logits).sum(dim=1) / weights.sum(dim=1).clamp(min=torch.finfo(weights.dtype).tiny)
