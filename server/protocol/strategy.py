"""Strategies: the next global weights from the average change of the hospitals' weights.

FedAvg: McMahan et al. 2017. FedProx (Li et al. 2020) differs at the hospital only. FedAdam and FedYogi: Reddi et al.
2021, algorithm 2, without bias correction, as there. SCAFFOLD: `shared_model.training.scaffold`.

A package adds a strategy by an entry point of the group `hipfed.strategies`, whose object makes a `Strategy` (`Build`).
It sees totals over hospitals and no single hospital's update; hospitals train as under FedAvg.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from shared_model import extensions
from shared_model.config import Settings
from shared_model.errors import ExtensionError
from shared_model.training.scaffold import CONTROL, controlled_names
from shared_model.training.updates import Weights, is_moment, mean_change


@dataclass(frozen=True)
class RoundTotal:
    """What a round's answers add up to.

    Attributes:
        sums: over the hospitals that answered, by the names that the question lists.
        answered: their names.
        round_number: rounds done over all phases, with this one.
    """

    sums: Mapping[str, np.ndarray]
    answered: Sequence[str]
    round_number: int


class Strategy:
    """One server step a round: FedAvg, and what the others differ in. Its state is plain arrays, for a checkpoint."""

    def __init__(self, state: Mapping[str, np.ndarray] | None = None) -> None:
        self.state: dict[str, np.ndarray] = dict(state or {})

    def control(self) -> dict[str, np.ndarray]:
        """What travels to all hospitals with the weights besides them, float32; nothing but for SCAFFOLD."""
        return {}

    def counted_round(self, site: str) -> int:  # noqa: ARG002
        """Last round of the phase that a hospital's own state counts from; 0 where it keeps none."""
        return 0

    def advance(self, weights: Weights, total: RoundTotal) -> dict[str, np.ndarray]:
        """Next global weights, float32, from those at the start of the round; the state goes on with them."""
        return self.step(weights, mean_change(total.sums, weights))

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

    def optimise(self, name: str, change: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """What to add to a parameter, float64: the average change itself."""
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


class Scaffold(Strategy):
    """FedAvg with control variates: c + sum n_i (c_i+ - c_i) / N over those who answered, with server step 1.

    The state remembers, too, in which round a hospital's answer counted last: an answer that came too late changed the
    hospital's control variate and not the sum, and both must stay equal.
    """

    def __init__(self, *, n_train: int, state: Mapping[str, np.ndarray] | None = None) -> None:
        """N is the number of training patients of all hospitals that take part."""
        super().__init__(state)
        self._n_train = n_train

    def control(self) -> dict[str, np.ndarray]:
        """The mean c of all hospitals' control variates, by parameter name."""
        return {
            name.removeprefix(CONTROL): value.astype(np.float32)
            for name, value in self.state.items()
            if name.startswith(CONTROL)
        }

    def counted_round(self, site: str) -> int:
        """Last round in which this hospital's answer counted."""
        return int(self.state.get(f"counted/{site}", 0))

    def advance(self, weights: Weights, total: RoundTotal) -> dict[str, np.ndarray]:
        """FedAvg's step; c moves by what the hospitals' control variates did."""
        for name in (CONTROL + name for name in controlled_names(weights)):
            self.state[name] = self.state.get(name, 0.0) + total.sums[name] / self._n_train
        self.state |= {f"counted/{site}": np.array(total.round_number) for site in total.answered}
        return super().advance(weights, total)


class Build(Protocol):
    """What makes a strategy at the first round of a phase, or from a checkpoint."""

    def __call__(self, settings: Settings, *, n_train: int, state: Mapping[str, np.ndarray] | None) -> Strategy:
        """The strategy.

        Args:
            settings: of the run.
            n_train: training patients of all hospitals together.
            state: of a checkpoint; what the strategy kept in `state` comes back here.
        """


def _build_average(
    settings: Settings,  # noqa: ARG001
    *,
    n_train: int,  # noqa: ARG001
    state: Mapping[str, np.ndarray] | None,
) -> Strategy:
    return Strategy(state)


def _build_adaptive(
    settings: Settings,
    *,
    n_train: int,  # noqa: ARG001
    state: Mapping[str, np.ndarray] | None,
) -> Strategy:
    return FedAdaptive(settings, yogi=settings.strategy == "fedyogi", state=state)


def _build_scaffold(
    settings: Settings,  # noqa: ARG001
    *,
    n_train: int,
    state: Mapping[str, np.ndarray] | None,
) -> Strategy:
    return Scaffold(n_train=n_train, state=state)


_BUILT_IN: Mapping[str, Build] = {
    **dict.fromkeys(("fedavg", "fedprox", "newton"), _build_average),  # Newton's own steps: `training.choose_strategy`
    **dict.fromkeys(("fedadam", "fedyogi"), _build_adaptive),
    "scaffold": _build_scaffold,
}


def build_strategy(settings: Settings, *, n_train: int, state: Mapping[str, np.ndarray] | None = None) -> Strategy:
    """The strategy that the settings name, hipfed's or another package's.

    Args:
        settings: of the run.
        n_train: training patients of all hospitals together.
        state: of a checkpoint, to continue from.

    Raises:
        ExtensionError: the package's object makes no strategy.
    """
    build = _BUILT_IN.get(settings.strategy) or extensions.load(extensions.STRATEGIES, settings.strategy)
    built = build(settings, n_train=n_train, state=state)
    if not isinstance(built, Strategy):
        raise ExtensionError(
            f"strategy={settings.strategy}: expected a subclass of server.protocol.strategy.Strategy, got "
            f"{type(built).__name__}. Mend the package that adds it."
        )
    return built
