"""Questions with a deadline and a quorum: a run never waits for ever, and names who failed and why."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flwr.app import RecordDict

from server.protocol.link import Answer, Link
from shared_model.errors import HipfedError, StudyError
from shared_model.protocol.messages import Refusal, count_bytes, is_message

log = logging.getLogger("hipfed.server")


@dataclass
class Attendance:
    """Who answered one question.

    Attributes:
        asked: names of the hospitals asked.
        answered: names of those whose answer counts.
        failed: reason by name, for all others.
        bytes_down: payload sent to hospitals.
        bytes_up: payload of the answers that came.
        seconds: from the first message to the last answer.
        lacking: nodes among the failed that asked for weights which the question left out.
    """

    asked: list[str]
    answered: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0
    seconds: float = 0.0
    lacking: set[int] = field(default_factory=set)

    def joined_by(self, later: Attendance) -> Attendance:
        """Both questions as one, put to some hospitals first and to others (or again) later."""
        return Attendance(
            asked=sorted({*self.asked, *later.asked}),
            answered=sorted({*self.answered, *later.answered}),
            failed={name: why for name, why in self.failed.items() if name not in later.asked} | later.failed,
            bytes_down=self.bytes_down + later.bytes_down,
            bytes_up=self.bytes_up + later.bytes_up,
            seconds=round(self.seconds + later.seconds, 3),
            lacking=later.lacking,
        )


def ask_sites(
    link: Link,
    kind: str,
    questions: Mapping[int, RecordDict],
    *,
    names: Mapping[int, str],
    deadline_s: float,
    accept: Callable[[int, RecordDict], None],
) -> Attendance:
    """Put the questions, and pass every good answer to `accept` as it comes.

    Args:
        link: the way to the hospitals.
        kind: message kind.
        questions: one record a node.
        names: hospital's name by node; empty in the handshake, where a refusal names its hospital itself.
        deadline_s: longest wait.
        accept: takes an answer; raising a HipfedError excludes that answer, not the run.
    """
    started = time.monotonic()
    attendance = Attendance(
        asked=sorted(names.get(node, f"node {node}") for node in questions),
        bytes_down=sum(count_bytes(record) for record in questions.values()),
    )
    heard: set[int] = set()
    for answer in link.ask(kind, questions, deadline_s=deadline_s):
        heard.add(answer.node)
        if _hear(answer, attendance, names, accept):
            name = names.get(answer.node, f"node {answer.node}")
            log.info("%s: %s answered after %.2f s", kind, name, time.monotonic() - started)
        del answer  # it may be large, and is not to be kept while the next is on its way
    for node in questions:
        name = names.get(node, f"node {node}")
        if node not in heard:
            attendance.failed[name] = "no answer"
    attendance.answered.sort()
    attendance.failed = dict(sorted(attendance.failed.items()))
    attendance.seconds = round(time.monotonic() - started, 3)
    return attendance


def _hear(
    answer: Answer, attendance: Attendance, names: Mapping[int, str], accept: Callable[[int, RecordDict], None]
) -> bool:
    """Enter an answer into the attendance; whether it counts."""
    name = names.get(answer.node, f"node {answer.node}")
    if answer.record is None:
        attendance.failed[name] = answer.failure
        return False
    attendance.bytes_up += count_bytes(answer.record)
    try:
        if is_message(answer.record, Refusal):
            refusal = Refusal.from_record(answer.record)
            attendance.failed[names.get(answer.node, refusal.site)] = refusal.reason
            if refusal.code == "needs-weights":
                attendance.lacking.add(answer.node)
            return False
        accept(answer.node, answer.record)
    except HipfedError as error:
        attendance.failed[name] = str(error)
        return False
    attendance.answered.append(name)
    return True


def require_quorum(attendance: Attendance, *, min_sites: int, step: str) -> None:
    """Enough hospitals answered to go on.

    Raises:
        StudyError: fewer than `min_sites`; the message names every failure.
    """
    if len(attendance.answered) >= min_sites:
        return
    reasons = "\n".join(f"  {name}: {reason}" for name, reason in attendance.failed.items()) or "  none failed"
    raise StudyError(
        f"{step}: expected answers of at least {min_sites} hospitals (min-sites), got {len(attendance.answered)} of "
        f"{len(attendance.asked)}. Failed:\n{reasons}"
    )
