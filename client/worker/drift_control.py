"""SCAFFOLD at the hospital: its own control variates, kept between the rounds of a phase."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from client.worker.run_state import RunState
from shared_model.errors import ProtocolError
from shared_model.protocol.messages import TrainRequest
from shared_model.training.scaffold import controlled_names, gradient_corrections, next_control, pack_control
from shared_model.training.updates import N_TRAIN, Counts, Weights


@dataclass(frozen=True)
class DriftControl:
    """One round's control variates.

    Attributes:
        own: c_i by parameter name; empty for zero.
        corrections: c - c_i, added to every gradient; empty for zero.
    """

    own: Weights
    corrections: Weights

    def as_tensors(self, device: torch.device) -> dict[str, Tensor]:
        """The corrections where the model is."""
        return {name: torch.from_numpy(np.array(value)).to(device) for name, value in self.corrections.items()}

    def advance(
        self,
        request: TrainRequest,
        state: RunState,
        *,
        after: Weights,
        rates: Mapping[str, float],
        n_steps: int,
        counts: Counts,
    ) -> dict[str, np.ndarray]:
        """Keep the control variates of the round; returns what leaves, n_i times their change.

        Args:
            request: with the weights at the start of the round.
            state: where they are kept.
            after: the same weights after local training.
            rates: learning rate by parameter name.
            n_steps: of the round.
            counts: training patients.
        """
        control = next_control(self.corrections, before=request.weights, after=after, rates=rates, n_steps=n_steps)
        state.save_control(control, after_round=request.round_number + 1, counted_round=request.counted_round)
        return pack_control(self.own, control, n=int(counts[N_TRAIN]))


def open_control(request: TrainRequest, state: RunState) -> DriftControl:
    """The control variates to train with.

    Raises:
        ProtocolError: the coordinator's do not fit the weights, or the hospital's own are lost.
    """
    shapes = {name: request.weights[name].shape for name in controlled_names(request.weights)}
    found = {name: value.shape for name, value in request.control.items()}
    if found and (found != shapes or not all(np.isfinite(value).all() for value in request.control.values())):
        raise ProtocolError("control variates: expected finite values, one array a parameter that travels, got others.")
    own = state.load_control(request.counted_round)
    return DriftControl(own, gradient_corrections(request.control, own))
