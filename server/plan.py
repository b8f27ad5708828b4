"""What stays the same in every question of a run once the hospitals and the preprocessing are known."""

from __future__ import annotations

from dataclasses import dataclass

from server.roster import Roster
from shared_model.config import Settings
from shared_model.messages import Study
from shared_model.preprocessing import Preprocessing
from shared_model.privacy.suppression import SmallCellRule
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
    """

    study: Study
    schema: Schema
    settings: Settings
    roster: Roster
    preprocessing: Preprocessing
    event_weight: float

    @property
    def rule(self) -> SmallCellRule:
        """The small-cell rule of the run."""
        return SmallCellRule.of(self.settings)
