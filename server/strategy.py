"""From the average change of the hospitals' weights to the next global weights.

FedAvg: McMahan et al. 2017. FedProx (Li et al. 2020) differs at the hospital only. FedAdam and FedYogi: Reddi et al.
2021, algorithm 2, without bias correction, as there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from shared_model.config import Settings
from shared_model.updates import Weights, is_moment


class Strategy(ABC):
    """One server step a round. Its state is plain arrays, so a checkpoint can hold it."""

    def __init__(self, state: Mapping[str, np.ndarray] | None = None) -> None:
        self.state: dict[str, np.ndarray] = dict(state or {})

    def step(self, weights: Weights, change: Weights) -> dict[str, np.ndarray]:
        """Next global weights, float32.

        Args:
            weights: global weights at the start of the round.
            change: average change over patients; BatchNorm moments are applied as they are, never optimised.
        """
        stepped = {}
        for name, start in weights.items():
            moved = change[name] if is_moment(name) else self.optimise(name, change[name])
            stepped[name] = (start.astype(np.float64) + moved).astype(np.float32)
        return stepped

    @abstractmethod
    def optimise(self, name: str, change: np.ndarray) -> np.ndarray:
        """What to add to a parameter, float64."""


class FedAvg(Strategy):
    """The average change itself."""

    def optimise(self, name: str, change: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """The change."""
        return change


class FedAdaptive(Strategy):
    """Adam or Yogi on the average change as a pseudo-gradient."""

    def __init__(self, settings: Settings, *, yogi: bool, state: Mapping[str, np.ndarray] | None = None) -> None:
        super().__init__(state)
        self._settings, self._yogi = settings, yogi

    def optimise(self, name: str, change: np.ndarray) -> np.ndarray:
        """Step eta * m / (sqrt(v) + tau), with v starting at tau^2."""
        s = self._settings
        square = np.square(change)
        m = self.state.get(f"{name}/m", np.zeros_like(change))
        v = self.state.get(f"{name}/v", np.full_like(change, s.server_tau**2))
        m = s.server_beta_1 * m + (1 - s.server_beta_1) * change
        if self._yogi:
            v = v - (1 - s.server_beta_2) * square * np.sign(v - square)
        else:
            v = s.server_beta_2 * v + (1 - s.server_beta_2) * square
        self.state |= {f"{name}/m": m, f"{name}/v": v}
        moved: np.ndarray = s.server_learning_rate * m / (np.sqrt(v) + s.server_tau)
        return moved


def build_strategy(settings: Settings, state: Mapping[str, np.ndarray] | None = None) -> Strategy:
    """The strategy that the settings name, continuing from a checkpoint's state if given."""
    if settings.strategy in {"fedavg", "fedprox"}:
        return FedAvg(state)
    return FedAdaptive(settings, yogi=settings.strategy == "fedyogi", state=state)
