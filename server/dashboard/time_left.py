"""Time that the training may still take, as far as its rounds tell.

A phase ends when `patience` rounds brought no lower validation loss, or after its last round. So the earliest end is as
near as the patience that is left, the latest as far as the rounds that are left; around each lies what the spread of
the rounds so far says of a sum of rounds to come (Student's t; Geisser 1993, prediction of a future mean):

    m * mean +- t * sd * sqrt(m + m^2 / k)      for m rounds to come after k that were timed

Phases that have not begun are not foretold: their rounds are of another kind. Neither are evaluation and explanation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from scipy.special import stdtrit

from server.run_folder.records import Config, Round
from shared_model.config import Settings, parse_settings
from shared_model.errors import HipfedError

FEWEST_ROUNDS = 3
_LEVEL = 0.95


@dataclass(frozen=True)
class TimeLeft:
    """Of the phase that runs.

    Attributes:
        phase: that runs.
        done: its rounds that are done.
        most: its rounds, if none is saved.
        low_s: seconds until the earliest end; None while too few rounds are done to say.
        high_s: seconds until the latest end; None likewise.
        later: phases that come after it.
    """

    phase: str
    done: int
    most: int
    low_s: float | None
    high_s: float | None
    later: tuple[str, ...]


def estimate_time_left(config: Config | None, rounds: Sequence[Round]) -> TimeLeft | None:
    """How long the phase that runs may still take; None before the first round, or if its settings cannot be read."""
    settings = _read_settings(config)
    if settings is None or not rounds or rounds[-1].phase not in settings.phases:
        return None
    phase = next(one for one in settings.phases if one == rounds[-1].phase)
    lines = [line for line in rounds if line.phase == phase]
    trained = [line for line in lines if line.train_loss is not None]
    most = settings.rounds(phase)
    since_best = _rounds_since_best(lines)
    # Where the losses may not be told, the phase may end after any round.
    patience = 0 if since_best is None else max(settings.patience - since_best, 0)
    is_over = len(trained) < len(lines) or (since_best is not None and not patience)
    to_come = 0 if is_over else max(most - len(trained), 0) + 1  # one more only validates
    later = settings.phases[settings.phases.index(phase) + 1 :]
    seconds = [line.seconds for line in lines if line.seconds is not None]
    if len(seconds) < FEWEST_ROUNDS:
        return TimeLeft(phase, len(trained), most, None, None, later)
    low, high = _predict(seconds, min(patience, to_come))[0], _predict(seconds, to_come)[1]
    return TimeLeft(phase, len(trained), most, low, high, later)


def _read_settings(config: Config | None) -> Settings | None:
    if config is None:
        return None
    try:
        return parse_settings(dict(config.settings))
    except HipfedError:  # of another version: then nothing is foretold
        return None


def _rounds_since_best(lines: Sequence[Round]) -> int | None:
    """None where no loss is told."""
    losses = [math.inf if line.val_loss is None else line.val_loss for line in lines]
    return len(losses) - 1 - losses.index(min(losses)) if min(losses) < math.inf else None


def _predict(seconds: Sequence[float], m: int) -> tuple[float, float]:
    """Between which the sum of `m` rounds to come lies, 95 %."""
    k = len(seconds)
    half = float(stdtrit(k - 1, 0.5 + _LEVEL / 2)) * stdev(seconds) * math.sqrt(m + m * m / k)
    return max(m * mean(seconds) - half, 0.0), m * mean(seconds) + half
