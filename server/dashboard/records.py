"""The dashboard's records of a run: frozen, made by `reading`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from server.run_folder.explanation import Explanation
from server.run_folder.reading import Tested
from server.run_folder.records import Config, Round

State = Literal["running", "completed", "failed", "interrupted", "damaged"]
STATES: tuple[State, ...] = ("running", "completed", "failed", "interrupted", "damaged")


@dataclass(frozen=True)
class RunSummary:
    """A run in the list.

    Attributes:
        name: as in RUNS.
        state: how it stands.
        reason: why it failed, or what is wrong; "" where there is nothing to say.
        study: title of the study; "" where that is not known yet.
        n_hospitals: that take part; None where that is not known yet.
        tested: its metrics; None before the end.
        last: the last round.
        started: of the last attempt, by the times of its files.
        changed: when a file of it last changed.
    """

    name: str
    state: State
    reason: str
    study: str
    n_hospitals: int | None
    tested: Tested | None
    last: Round | None
    started: datetime | None
    changed: datetime


@dataclass(frozen=True)
class RunDetail:
    """A run on its own page.

    Attributes:
        summary: as in the list.
        config: what decides it; None where that is not known yet.
        rounds: all of them.
        explanation: what the model looks at; None before the end.
        problems: what is wrong with its files.
        folds: names of its folds.
    """

    summary: RunSummary
    config: Config | None
    rounds: tuple[Round, ...]
    explanation: Explanation | None
    problems: tuple[str, ...]
    folds: tuple[str, ...]
