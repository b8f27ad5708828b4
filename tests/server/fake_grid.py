"""As much of Flower as its apps need to run outside a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid


def make_context(
    *, node_config: Mapping[str, str | int | float | bool], run_config: Mapping[str, str | int | float | bool]
) -> Context:
    """The context of an app."""
    return Context(run_id=1, node_id=1, node_config=dict(node_config), state=RecordDict(), run_config=dict(run_config))


def make_reply(message_id: str, *, src_node_id: int = 0, error: int | None = None) -> Any:
    """A reply to the message with this id; an error's text quotes a patient, as a hospital's exception might."""
    return SimpleNamespace(
        metadata=SimpleNamespace(reply_to_message_id=message_id, src_node_id=src_node_id),
        has_error=lambda: error is not None,
        error=SimpleNamespace(code=error, reason="KeyError: 'patient-007'"),
        content=RecordDict(),
    )


UNUSED = "the link pushes and pulls messages and uses nothing else of the grid"


class FakeGrid(Grid):
    """Message ids are m0, m1, ...; replies come in batches, one a pull, whoever was asked."""

    def __init__(
        self, *, nodes: Iterable[int] = (), batches: Iterable[list[Any]] = (), unsent: Iterable[int] = ()
    ) -> None:
        self.nodes, self.batches, self.unsent = list(nodes), list(batches), set(unsent)
        self.sent: list[Message] = []

    def set_run(self, *_: Any, **__: Any) -> None:
        raise AssertionError(UNUSED)

    @property
    def run(self) -> Any:
        raise AssertionError(UNUSED)

    def create_message(self, *_: Any, **__: Any) -> Message:
        raise AssertionError(UNUSED)

    def send_and_receive(self, *_: Any, **__: Any) -> Iterable[Message]:
        raise AssertionError(UNUSED)

    def get_node_ids(self) -> Iterable[int]:
        return self.nodes

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self.sent = list(messages)
        return [
            "" if message.metadata.dst_node_id in self.unsent else f"m{index}"
            for index, message in enumerate(self.sent)
        ]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        waiting = set(message_ids)
        batch = self.batches.pop(0) if self.batches else []
        assert all(reply.metadata.reply_to_message_id in waiting for reply in batch)
        return batch
