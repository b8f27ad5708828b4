"""Hospitals in this process: the same protocol and the same messages as over Flower, without its start-up time."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from flwr.app import RecordDict

from client.worker.answering import Worker
from server.protocol.link import Answer
from shared_model.config import Settings


def accept_all(settings: Settings, names: Iterable[str]) -> Settings:
    """The same settings with every hospital accepted: a benchmark measures what faults do to a model."""
    return settings.model_copy(update={"accept_red": ",".join(names)})


class InProcessLink:
    """Asks workers one after the other, in node order; node ids are positions in the list."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = dict(enumerate(workers))

    def nodes(self) -> frozenset[int]:
        """All of them."""
        return frozenset(self._workers)

    def ask(self, kind: str, questions: Mapping[int, RecordDict], *, deadline_s: float) -> Iterator[Answer]:  # noqa: ARG002
        """As `Link.ask`; a call in the same process has no deadline to miss."""
        for node, question in sorted(questions.items()):
            yield Answer(node, self._workers[node].answer(kind, question))
