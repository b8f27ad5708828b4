"""Questions about one whole model: its weights travel once to each hospital, later questions name their hash."""

from typing import Any

from server.protocol.answers import Answers
from server.protocol.plan import StudyPlan
from server.protocol.quorum import require_quorum
from server.run_folder.checkpoints import Progress
from shared_model.config import Phase
from shared_model.protocol.messages import Part, WholeModelRequest
from shared_model.protocol.questions import find_question
from shared_model.training.updates import hash_weights


class WholeModel:
    """The weights as they are now.

    Attributes:
        plan: the run's constants.
        phase: which prediction counts.
        sha256: hash of the weights.
    """

    def __init__(self, plan: StudyPlan, progress: Progress, *, phase: Phase) -> None:
        self.plan, self.phase = plan, phase
        self.sha256 = hash_weights(progress.whole())
        self._fields: dict[str, Any] = {
            "study": plan.hospitals.study,
            "phase": phase,
            "weights_round": progress.weights_round,
            "discarded": tuple((after, last) for after, last in progress.discarded),
            "trained_phases": progress.trained_phases(),
            "preprocessing": plan.preprocessing.to_json(),
            "event_weight": plan.event_weight,
            "networks_sha256": progress.networks_sha256,
            "weights_sha256": self.sha256,
            "networks": progress.networks,
            "weights": progress.weights,
        }
        self._holders: set[int] = set()

    def ask(self, request: type[WholeModelRequest], *, part: Part, **fields: Any) -> Answers:
        """Put one question to every hospital.

        Args:
            request: type of the question.
            part: which patients.
            fields: of the question, besides what every question about a model has.

        Raises:
            StudyError: no quorum.
        """
        question = request(**self._fields, **fields, part=part)
        holders = {"networks": self.plan.network_holders, "weights": self._holders}
        answers = self.plan.hospitals.ask(question, holders=holders)
        step = f"{find_question(question).kind.removeprefix('query.')} ({part})"
        require_quorum(answers.attendance, min_sites=self.plan.settings.min_sites, step=step)
        return answers
