"""The constant part of every question of a run, once the hospitals and the preprocessing are known."""

from __future__ import annotations

from dataclasses import dataclass, field

from server.protocol.quorum import Attendance
from server.protocol.roster import Roster
from shared_model.config import Settings
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.privacy.suppression import SmallCellRule
from shared_model.protocol.messages import StudyReference
from shared_model.schema import Schema


@dataclass(frozen=True)
class StudyPlan:
    """The run's constants.

    Attributes:
        study: what every question repeats.
        schema: the study's variables.
        settings: of the run.
        roster: the hospitals that take part.
        preprocessing: the common one.
        event_weight: how often an event counts in the loss.
        deployed: hospitals are enrolled and have approved the study; False in a simulation.
        network_holders: nodes that have shown to hold the fixed networks; changes as they answer.
    """

    study: StudyReference
    schema: Schema
    settings: Settings
    roster: Roster
    preprocessing: Preprocessing
    event_weight: float
    deployed: bool = False
    network_holders: set[int] = field(default_factory=set)

    def note_holders(self, attendance: Attendance) -> None:
        """Who answered holds the fixed networks; who failed may have lost them, so they go along next time."""
        for node, name in self.roster.names.items():
            if name in attendance.answered:
                self.network_holders.add(node)
            elif name in attendance.failed:
                self.network_holders.discard(node)

    @property
    def rule(self) -> SmallCellRule:
        """The small-cell rule of the run."""
        return SmallCellRule.of(self.settings)
