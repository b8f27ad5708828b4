"""The hospitals of a run, and the one way to put a question to them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from flwr.app import RecordDict

from server.protocol.answers import Answers
from server.protocol.link import Answer, Link
from server.protocol.quorum import Attendance, require_quorum
from server.protocol.reduce import PlainSum, Reducer
from server.protocol.secure_sums import SecureSums
from shared_model.config import Settings
from shared_model.errors import HipfedError
from shared_model.protocol.messages import Refusal, Request, StudyReference, SumsReply, count_bytes, is_message
from shared_model.protocol.questions import Question, find_question
from shared_model.schema import Schema

log = logging.getLogger("hipfed.server")

Holders = Mapping[str, set[int]]


@dataclass(frozen=True)
class Hospitals:
    """The hospitals that a question goes to, and what every question to them repeats.

    Attributes:
        link: the way to them.
        study: the run, as requests name it.
        schema: the study's variables.
        settings: of the run.
        names: hospital's name by node; empty before the handshake, where a refusal names its hospital itself.
        sums: adds answers securely; None where the coordinator adds them.
    """

    link: Link
    study: StudyReference
    schema: Schema
    settings: Settings
    names: Mapping[int, str]
    sums: SecureSums | None = None

    def only(self, names: Collection[str]) -> Hospitals:
        """Those among them that have one of these names."""
        return replace(self, names={node: name for node, name in self.names.items() if name in names})

    def ask(
        self,
        request: Request,
        *,
        nodes: Collection[int] | None = None,
        holders: Holders | None = None,
        vary: Callable[[int], Mapping[str, Any]] = lambda _: {},
    ) -> Answers:
        """Put one question; a hospital that lacks weights which were left out is asked again, with them.

        An answer that is late, refused, or not what the question allows excludes its hospital, never ends the run.

        Args:
            request: with all its arrays.
            nodes: whom to ask; all that have a name, if not given.
            holders: by field of the request, the nodes that have shown to hold these arrays: for them the field is left
                empty. Who answers is entered, who fails is taken out.
            vary: fields that differ between nodes.

        Raises:
            StudyError: fewer answer than a secure sum needs.
        """
        question, held = find_question(request), holders or {}
        asked = set(self.names if nodes is None else nodes)
        reducer = self._open_reducer(question, request, asked)
        if reducer.sum_round is not None:
            study = request.study.model_copy(update={"sum_round": reducer.sum_round})
            request = request.model_copy(update={"study": study})
        own: dict[int, Any] = {}

        @cache
        def compose(left_out: frozenset[str], varied: tuple[tuple[str, Any], ...]) -> RecordDict:
            return request.model_copy(update={name: {} for name in left_out} | dict(varied)).to_record()

        def take(node: int, record: RecordDict) -> None:
            reply = question.reply.from_record(record)
            told = question.own(reply, self.schema, self.settings) if question.own else None
            if isinstance(reply, SumsReply):
                reducer.add(reply.arrays, where=self._name(node))
            own[node] = told

        attendance = Attendance(asked=[])
        while asked:
            left_out = {node: frozenset(name for name in held if node in held[name]) for node in sorted(asked)}
            records = {node: compose(left_out[node], tuple(vary(node).items())) for node in left_out}
            heard = self._put(question.kind, records, take=take)
            attendance = attendance.joined_by(heard)
            _note_holders(held, answered=own.keys() & asked, failed=asked - own.keys())
            asked = {node for node in heard.lacking if left_out[node]}
        require_quorum(attendance, min_sites=reducer.fewest, step=f"{question.kind}, a secure sum")
        sums = reducer.total()
        attendance.add_costs(reducer.costs)
        return Answers(attendance, sums, own if question.own else {})

    def _open_reducer(self, question: Question, request: Request, asked: Collection[int]) -> Reducer:
        """What adds up the answers to a question."""
        quantities = question.quantities(request, self.schema, self.settings)
        if self.sums is None or not question.has_sums:
            return PlainSum(quantities, agrees=question.agrees)
        names = {node: self.names[node] for node in asked}
        return self.sums.begin(self.ask, self.study, names, quantities, agrees=question.agrees)

    def _put(
        self, kind: str, records: Mapping[int, RecordDict], *, take: Callable[[int, RecordDict], None]
    ) -> Attendance:
        """Send a record to each node, and let `take` have every good answer as it comes."""
        started = time.monotonic()
        attendance = Attendance(
            asked=sorted(map(self._name, records)), bytes_down=sum(count_bytes(record) for record in records.values())
        )
        silent = set(records)
        for answer in self.link.ask(kind, records, deadline_s=self.settings.deadline_s):
            silent.discard(answer.node)
            if self._hear(answer, attendance, take):
                log.info("%s: %s answered after %.2f s", kind, self._name(answer.node), time.monotonic() - started)
            del answer  # it may be large, and is not to be kept while the next is on its way
        attendance.failed |= {self._name(node): "no answer" for node in silent}
        attendance.answered.sort()
        attendance.failed = dict(sorted(attendance.failed.items()))
        attendance.seconds = round(time.monotonic() - started, 3)
        return attendance

    def _hear(self, answer: Answer, attendance: Attendance, take: Callable[[int, RecordDict], None]) -> bool:
        """True where the answer counts; it is entered into the attendance either way."""
        name = self._name(answer.node)
        if answer.record is None:
            attendance.failed[name] = answer.failure
            return False
        attendance.bytes_up += count_bytes(answer.record)
        try:
            if is_message(answer.record, Refusal):
                refusal = Refusal.from_record(answer.record)
                attendance.failed[self.names.get(answer.node, refusal.site)] = refusal.reason
                if refusal.code == "needs-weights":
                    attendance.lacking.add(answer.node)
                return False
            take(answer.node, answer.record)
        except HipfedError as error:
            attendance.failed[name] = str(error)
            return False
        except Exception as error:
            log.exception("the answer of %s cannot be read", name)
            attendance.failed[name] = f"answer: expected one that can be read, got {type(error).__name__}."
            return False
        attendance.answered.append(name)
        return True

    def _name(self, node: int) -> str:
        return self.names.get(node, f"node {node}")


def _note_holders(held: Holders, *, answered: Collection[int], failed: Collection[int]) -> None:
    """Who answered holds the arrays; who failed may have lost them, so they go along next time."""
    for nodes in held.values():
        nodes.update(answered)
        nodes.difference_update(failed)
