"""The coordinator's link to hospitals: a narrow seam, so the protocol runs over Flower and in one process alike."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from flwr.app import RecordDict


@dataclass(frozen=True)
class Answer:
    """One node's answer to one question.

    Attributes:
        node: id of the asked node.
        record: what it answered; None if it failed.
        failure: why there is no record; "" if there is one.
    """

    node: int
    record: RecordDict | None
    failure: str = ""


@runtime_checkable
class Link(Protocol):
    """A way to put one question each to some nodes."""

    def nodes(self) -> frozenset[int]:
        """Ids of the nodes that are connected now."""

    def ask(self, kind: str, questions: Mapping[int, RecordDict], *, deadline_s: float) -> Iterator[Answer]:
        """Put the questions and yield each answer as it comes, every asked node exactly once.

        Args:
            kind: message kind (`messages.KINDS`).
            questions: one record a node.
            deadline_s: a node that has not answered by then is yielded as failed; the call never waits longer.
        """
