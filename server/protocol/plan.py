"""The constants of a run, once the hospitals and the preprocessing are known."""

from dataclasses import dataclass, field

from server.protocol.hospitals import Hospitals
from shared_model.config import Settings
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.privacy.suppression import SmallCellRule
from shared_model.schema import Schema


@dataclass(frozen=True)
class StudyPlan:
    """The run's constants.

    Attributes:
        hospitals: those that take part.
        preprocessing: the common one.
        event_weight: how often an event counts in the loss.
        deployed: hospitals are enrolled and have approved the study; False in a simulation.
        network_holders: nodes that have shown to hold the fixed networks; changes as they answer.
    """

    hospitals: Hospitals
    preprocessing: Preprocessing
    event_weight: float
    deployed: bool = False
    network_holders: set[int] = field(default_factory=set)

    @property
    def schema(self) -> Schema:
        """The study's variables."""
        return self.hospitals.schema

    @property
    def settings(self) -> Settings:
        """Settings of the run."""
        return self.hospitals.settings

    @property
    def rule(self) -> SmallCellRule:
        """The small-cell rule of the run."""
        return SmallCellRule.of(self.settings)
