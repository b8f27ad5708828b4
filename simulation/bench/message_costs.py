"""The cost of a message beyond the worker's work, from two logs: the run's and the worker's."""

import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from shared_model.errors import StudyError
from shared_model.protocol.messages import HANDSHAKE

Summary = dict[str, float | int]

_COORDINATOR = re.compile(r"(\S+) INFO (\S+): (.+) answered after (\d+\.\d+) s")
_WORKER = re.compile(r"(\S+ \S+) INFO (\S+) answered in (\d+\.\d+) s")


@dataclass(frozen=True)
class Answered:
    """One answer, as one side wrote it down.

    Attributes:
        kind: of the message.
        at: when it was given or came.
        seconds: since the question was put, or came.
    """

    kind: str
    at: datetime
    seconds: float


@dataclass(frozen=True)
class Cost:
    """Where the time of one message went, in seconds.

    Attributes:
        kind: of the message.
        way_there: from the coordinator's program to the worker.
        work: of the worker.
        way_back: from the worker to the coordinator's program.
    """

    kind: str
    way_there: float
    work: float
    way_back: float

    @property
    def beyond_work(self) -> float:
        """All but the worker's."""
        return self.way_there + self.way_back


def read_run_log(lines: Iterable[str]) -> Mapping[str, list[Answered]]:
    """Answers by hospital in their order. The handshake's are not told by name, and are left out."""
    found: dict[str, list[Answered]] = defaultdict(list)
    for line in lines:
        if match := _COORDINATOR.fullmatch(line.rstrip()):
            at, kind, name, seconds = match.groups()
            if kind == HANDSHAKE:
                continue
            found[name].append(Answered(kind, datetime.fromisoformat(at), float(seconds)))
    return found


def read_worker_log(lines: Iterable[str]) -> list[Answered]:
    """A worker's answers in their order."""
    matches = (_WORKER.fullmatch(line.rstrip()) for line in lines)
    return [
        Answered(kind, datetime.fromisoformat(at.replace(",", ".")), float(seconds))
        for at, kind, seconds in (match.groups() for match in matches if match)
    ]


def pair_answers(asked: Sequence[Answered], worked: Sequence[Answered]) -> list[Cost]:
    """The cost of each message of one hospital.

    Args:
        asked: as the run's log tells.
        worked: as the worker's log tells, of this run; the handshake is passed over.

    Raises:
        StudyError: the logs do not tell of the same messages: one was lost, refused or answered twice.
    """
    kinds = {answer.kind for answer in asked}
    worked = [answer for answer in worked if answer.kind in kinds]
    if [answer.kind for answer in asked] != [answer.kind for answer in worked]:
        raise StudyError(
            f"logs of a hospital: expected {len(asked)} answers of the same kinds in both, got {len(worked)} in the "
            "worker's. A message was lost or refused; look at the run's log."
        )
    return [
        Cost(
            one.kind,
            way_there=(other.at - one.at).total_seconds() - other.seconds + one.seconds,
            work=other.seconds,
            way_back=(one.at - other.at).total_seconds(),
        )
        for one, other in zip(asked, worked, strict=True)
    ]


def summarise_costs(costs: Sequence[Cost]) -> dict[str, dict[str, Summary]]:
    """By kind, and of all kinds together, how the seconds are spread."""
    groups = {"all": list(costs)}
    for cost in costs:
        groups.setdefault(cost.kind, []).append(cost)
    return {
        kind: {
            part: summarise_seconds([getattr(cost, part) for cost in group])
            for part in ("beyond_work", "way_there", "work", "way_back")
        }
        for kind, group in groups.items()
    }


def summarise_seconds(seconds: Sequence[float]) -> Summary:
    """Number, least, median, 90th percentile (nearest rank) and largest.

    >>> summarise_seconds([3.0, 1.0, 2.0])
    {'n': 3, 'min': 1.0, 'median': 2.0, 'p90': 3.0, 'max': 3.0}
    """
    ordered = sorted(seconds)
    rank = -(-9 * len(ordered) // 10)
    return {
        "n": len(ordered),
        "min": round(ordered[0], 3),
        "median": round(statistics.median(ordered), 3),
        "p90": round(ordered[rank - 1], 3),
        "max": round(ordered[-1], 3),
    }
