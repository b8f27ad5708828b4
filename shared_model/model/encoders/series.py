"""Vital signs: the last state of an LSTM beside six summaries of each channel."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from shared_model.modalities.series import SUMMARIES


class SeriesEncoder(nn.Module):
    """LSTM over [value, measured, gap] of every channel, and per channel mean, min, max, sd, last value and count.

    The summaries raised the AUC on real intensive-care data from 0.740 to 0.755-0.763 beside the LSTM alone: with few
    deaths a network does not learn to take a minimum. All are functions of the same input, so an attribution to a
    time step passes through both. Either can be left out, for comparison.
    """

    def __init__(self, *, n_channels: int, hidden: int, summaries: bool = True) -> None:
        """An untrained encoder.

        Args:
            n_channels: of the series.
            hidden: width of the LSTM's state; 0 = no LSTM.
            summaries: whether the embedding ends with the channels' summaries.
        """
        super().__init__()
        self.n_channels, self.hidden = n_channels, hidden
        self.n_summaries = len(SUMMARIES) * n_channels if summaries else 0
        self.lstm = nn.LSTM(3 * n_channels, hidden, batch_first=True) if hidden else None
        self.width = hidden + self.n_summaries

    def forward(self, inputs: Float[Tensor, "batch time input"]) -> Float[Tensor, "batch {self.width}"]:
        """Embedding of a standardised series.

        Args:
            inputs: the channels' standardised values (0 where not measured), their measured flags (0/1), and the time
                since each was last measured as a fraction of the grid; n_channels columns each.
        """
        parts = []
        if self.lstm is not None:
            states, _ = self.lstm(inputs)
            parts.append(states[:, -1])
        if self.n_summaries:
            values, measured, _ = torch.split(inputs, self.n_channels, dim=2)
            parts.append(summarise_channels(values, measured > 0.5))
        return torch.cat(parts, dim=1)


def time_since_measured(measured: Bool[Tensor, "batch time channel"]) -> Float[Tensor, "batch time channel"]:
    """Time since each channel was last measured, as a fraction of the grid; 1 before the first measurement."""
    n_steps = measured.shape[1]
    steps = torch.arange(n_steps, device=measured.device).view(1, -1, 1)
    last = torch.where(measured, steps, -1).cummax(dim=1).values
    return torch.where(last < 0, n_steps, steps - last) / n_steps


def summarise_channels(
    values: Float[Tensor, "batch time channel"], measured: Bool[Tensor, "batch time channel"]
) -> Float[Tensor, "batch summary"]:
    """SUMMARIES of each channel over measured cells only; sd is the population's, `measured` the fraction of cells.

    A channel without a measurement gives zeros, the cohort's mean after standardisation, and a count of zero.
    """
    count = measured.sum(dim=1)  # (batch, channel)
    some = count > 0
    divisor = count.clamp(min=1)
    mean = values.where(measured, 0.0).sum(dim=1) / divisor
    variance = (values - mean.unsqueeze(1)).square().where(measured, 0.0).sum(dim=1) / divisor
    # The gradient of sqrt at zero is infinite: one measurement has variance exactly 0.
    sd = torch.where(variance > 0, variance.where(variance > 0, 1.0).sqrt(), 0.0)
    lowest = values.masked_fill(~measured, torch.inf).amin(dim=1).where(some, 0.0)
    highest = values.masked_fill(~measured, -torch.inf).amax(dim=1).where(some, 0.0)
    steps = torch.arange(values.shape[1], device=values.device).view(1, -1, 1)
    last_step = torch.where(measured, steps, 0).amax(dim=1, keepdim=True)
    last = values.gather(1, last_step).squeeze(1).where(some, 0.0)
    return torch.cat([mean, lowest, highest, sd, last, count / values.shape[1]], dim=1)
