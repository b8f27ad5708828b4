"""Links that go wrong on purpose."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from server.protocol.link import Answer, Link
from shared_model.protocol.messages import HandshakeReply

ARRAYS = "arrays"

Spoil = Callable[[str, Answer], Answer | None]


@dataclass
class FaultyLink:
    """Spoils the answers of one node to questions of some kinds; None means that no answer ever comes."""

    inner: Link
    node: int
    spoil: Spoil
    kinds: Sequence[str]

    def nodes(self) -> frozenset[int]:
        return self.inner.nodes()

    def ask(self, kind: str, questions: Mapping[int, RecordDict], *, deadline_s: float) -> Iterator[Answer]:
        for answer in self.inner.ask(kind, questions, deadline_s=deadline_s):
            if answer.node != self.node or kind not in self.kinds:
                yield answer
                continue
            spoiled = self.spoil(kind, answer)
            if spoiled is not None:
                yield spoiled


@dataclass
class RecordingLink:
    """Keeps every question that was put: kind, node and record."""

    inner: Link
    questions: list[tuple[str, int, RecordDict]] = field(default_factory=list)

    def nodes(self) -> frozenset[int]:
        return self.inner.nodes()

    def ask(self, kind: str, questions: Mapping[int, RecordDict], *, deadline_s: float) -> Iterator[Answer]:
        self.questions += [(kind, node, record) for node, record in questions.items()]
        yield from self.inner.ask(kind, questions, deadline_s=deadline_s)


@dataclass
class InterruptedLink:
    """Ends the process, as Ctrl-C would, at the question with this number."""

    inner: Link
    at: int
    asked: int = 0

    def nodes(self) -> frozenset[int]:
        return self.inner.nodes()

    def ask(self, kind: str, questions: Mapping[int, RecordDict], *, deadline_s: float) -> Iterator[Answer]:
        self.asked += 1
        if self.asked > self.at:
            raise KeyboardInterrupt
        yield from self.inner.ask(kind, questions, deadline_s=deadline_s)


@dataclass
class StoppedWithin:
    """Ends the process within the question with this number: the first hospital has worked, the second has not."""

    inner: Link
    at: int
    asked: int = 0

    def nodes(self) -> frozenset[int]:
        return self.inner.nodes()

    def ask(self, kind: str, questions: Mapping[int, RecordDict], *, deadline_s: float) -> Iterator[Answer]:
        self.asked += 1
        for answer in self.inner.ask(kind, questions, deadline_s=deadline_s):
            if self.asked > self.at:
                raise KeyboardInterrupt
            yield answer


@dataclass
class ScriptedLink:
    """Answers from a function of kind, node and question."""

    n_nodes: int
    reply: Callable[[str, int, RecordDict], Answer]

    def nodes(self) -> frozenset[int]:
        return frozenset(range(self.n_nodes))

    def ask(
        self,
        kind: str,
        questions: Mapping[int, RecordDict],
        *,
        deadline_s: float,  # noqa: ARG002
    ) -> Iterator[Answer]:
        for node, question in questions.items():
            yield self.reply(kind, node, question)


def _with_arrays(answer: Answer, change: Callable[[dict[str, Array]], None]) -> Answer:
    assert answer.record is not None
    arrays = dict(answer.record.array_records[ARRAYS])
    change(arrays)
    return Answer(answer.node, RecordDict({**answer.record, ARRAYS: ArrayRecord(arrays)}))


def _last(arrays: Mapping[str, Array]) -> str:
    """The array that is added last: spoiled, it finds a sum that takes the others before it looks."""
    return list(arrays)[-1]


def _set(arrays: dict[str, Array], name: str, value: np.ndarray | np.float64) -> None:
    arrays[name] = Array(np.asarray(value))


def _raw(name: str, data: bytes) -> Spoil:
    def change(arrays: dict[str, Array]) -> None:
        arrays[name or _last(arrays)] = Array(dtype="float64", shape=(1,), stype="numpy.ndarray", data=data)

    return lambda _, answer: _with_arrays(answer, change)


def _changed(change: Callable[[dict[str, Array]], None]) -> Spoil:
    return lambda _, answer: _with_arrays(answer, change)


def _drop_last(arrays: dict[str, Array]) -> None:
    del arrays[_last(arrays)]


def _contradict(kind: str, answer: Answer) -> Answer:
    """One more death than the histogram holds; the statistics have no scores, so there the site is silent."""
    if not kind.startswith("query"):
        return _with_arrays(
            answer, lambda arrays: _set(arrays, "score/events", arrays["score/events"].numpy() + np.float64(1))
        )
    return Answer(answer.node, None, "no answer within 5 s")


FAULTS: dict[str, Spoil] = {
    "not-a-number": _changed(lambda arrays: _set(arrays, _last(arrays), arrays[_last(arrays)].numpy() * np.nan)),
    "negative": _changed(lambda arrays: _set(arrays, _last(arrays), arrays[_last(arrays)].numpy() - 1e9)),
    "wrong-shape": _changed(lambda arrays: _set(arrays, _last(arrays), np.zeros((3, 2)))),
    "text": _changed(lambda arrays: _set(arrays, _last(arrays), np.array("x"))),
    "missing-array": _changed(_drop_last),
    "unknown-array": _changed(lambda arrays: _set(arrays, "patient-ids", np.zeros(3))),
    "no-arrays": _changed(lambda arrays: arrays.clear()),
    "contradiction": _contradict,
    "unreadable-zip": _raw("", b"PK\x03\x04junk"),
    "empty-zip": _raw("", b"PK\x05\x06" + bytes(18)),
    "unreadable-header": _raw("", b"\x93NUMPY\x01\x00\x10\x00{'descr': ((((((  "),
    "no-bytes": _raw("", b""),
    "wrong-message": lambda _, answer: Answer(
        answer.node, HandshakeReply(site="west", version="1", modalities=[]).to_record()
    ),
    "empty-message": lambda _, answer: Answer(answer.node, RecordDict()),
    "exception-at-the-hospital": lambda _, answer: Answer(answer.node, None, "Flower error 2"),
    "deadline": lambda _, answer: Answer(answer.node, None, "no answer within 5 s"),
    "silence": lambda *_: None,
}
