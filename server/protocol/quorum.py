"""Attendance of a question, and the quorum that a step needs: a run names who failed and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from shared_model.errors import StudyError


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

    def add_costs(self, others: Iterable[Attendance]) -> None:
        """Count the bytes and seconds of questions that were needed for this one."""
        for other in others:
            self.bytes_down += other.bytes_down
            self.bytes_up += other.bytes_up
            self.seconds = round(self.seconds + other.seconds, 3)

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
