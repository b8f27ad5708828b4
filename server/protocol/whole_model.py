"""Questions about one whole model: its weights travel once to each hospital, later questions name their hash."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from flwr.app import RecordDict

from server.protocol.link import Link
from server.protocol.plan import StudyPlan
from server.protocol.quorum import Attendance, ask_sites, require_quorum
from server.run_folder.checkpoints import Progress
from shared_model.config import Phase
from shared_model.protocol.messages import Part, WholeModelRequest
from shared_model.training.updates import hash_weights


class WholeModel:
    """The weights as they are now.

    Attributes:
        plan: the run's constants.
        phase: which prediction counts.
        sha256: hash of the weights.
    """

    def __init__(self, link: Link, plan: StudyPlan, progress: Progress, *, phase: Phase) -> None:
        self.plan, self.phase = plan, phase
        self.sha256 = hash_weights(progress.whole())
        self._link = link
        self._weights: Mapping[str, np.ndarray] = progress.weights
        self._networks: Mapping[str, np.ndarray] = progress.networks
        self._fields: dict[str, Any] = {
            "study": plan.study,
            "phase": phase,
            "weights_round": progress.weights_round,
            "discarded": tuple((after, last) for after, last in progress.discarded),
            "trained_phases": progress.trained_phases(),
            "preprocessing": plan.preprocessing.to_json(),
            "event_weight": plan.event_weight,
            "networks_sha256": progress.networks_sha256,
            "weights_sha256": self.sha256,
        }
        self._holders: set[int] = set()

    def ask(
        self,
        kind: str,
        request: type[WholeModelRequest],
        *,
        part: Part,
        accept: Callable[[int, RecordDict], None],
        **fields: Any,
    ) -> Attendance:
        """Put one question to every hospital; those that lack the weights are asked again, with them.

        Args:
            kind: message kind.
            request: type of the question.
            part: which patients.
            accept: takes an answer, as in `ask_sites`.
            fields: of the question, besides what every question about a model has.

        Raises:
            StudyError: no quorum.
        """

        @cache
        def record(*, weights: bool, networks: bool) -> RecordDict:
            arrays: dict[str, Any] = {
                "weights": dict(self._weights) if weights else {},
                "networks": dict(self._networks) if networks else {},
            }
            return request(**self._fields, **fields, part=part, **arrays).to_record()

        def put(nodes: set[int], *, weights: bool) -> Attendance:
            attendance = ask_sites(
                self._link,
                kind,
                {
                    node: record(weights=weights, networks=weights and node not in self.plan.network_holders)
                    for node in sorted(nodes)
                },
                names=self.plan.roster.names,
                deadline_s=self.plan.settings.deadline_s,
                accept=accept,
            )
            self.plan.note_holders(attendance)
            return attendance

        everyone = set(self.plan.roster.names)
        attendance = put(self._holders, weights=False) if self._holders else Attendance(asked=[])
        without = everyone - self._holders | attendance.lacking
        if without:
            attendance = attendance.joined_by(put(without, weights=True))
        self._holders = {node for node, name in self.plan.roster.names.items() if name in attendance.answered}
        require_quorum(
            attendance, min_sites=self.plan.settings.min_sites, step=f"{kind.removeprefix('query.')} ({part})"
        )
        return attendance
