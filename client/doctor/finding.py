"""The result of one check."""

from dataclasses import dataclass
from typing import Literal

Grade = Literal["fine", "warning", "fault", "unchecked"]


@dataclass(frozen=True)
class CheckResult:
    """One line of the examination.

    Attributes:
        subject: what was checked.
        grade: `warning` does not keep the hospital from a study; `unchecked`: an earlier fault is in the way.
        detail: what was found.
        remedy: what to do; empty where nothing is.
    """

    subject: str
    grade: Grade
    detail: str
    remedy: str = ""
