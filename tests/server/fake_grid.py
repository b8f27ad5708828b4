"""As much of Flower as its apps need to run outside a run."""

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import Context, Message, Metadata, RecordDict
from flwr.app.error import Error
from flwr.app.message import make_message
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid


def make_context(
    *, node_config: Mapping[str, str | int | float | bool], run_config: Mapping[str, str | int | float | bool]
) -> Context:
    """The context of an app."""
    return Context(run_id=1, node_id=1, node_config=dict(node_config), state=RecordDict(), run_config=dict(run_config))


@dataclass(frozen=True)
class Coming:
    """A reply, announced some time after the grid was made; who pulls it then waits for the rest of it."""

    message: Message
    after_s: float
    upload_s: float


def make_reply(
    message_id: str, *, src_node_id: int = 0, error: int | None = None, after_s: float = 0.0, upload_s: float = 0.0
) -> Coming:
    """A reply to the message with this id; an error's text quotes a patient, as a hospital's exception might."""
    metadata = Metadata(
        run_id=1,
        message_id="",
        src_node_id=src_node_id,
        dst_node_id=1,
        reply_to_message_id=message_id,
        group_id="",
        created_at=0.0,
        ttl=1.0,
        message_type="train",
    )
    if error is None:
        return Coming(make_message(metadata, content=RecordDict()), after_s, upload_s)
    return Coming(make_message(metadata, error=Error(error, "KeyError: 'patient-007'")), after_s, upload_s)


UNUSED = "the link pushes and pulls messages and uses nothing else of the grid"


class FakeGrid(Grid):
    """Message ids are m0, m1, ... in the order of sending."""

    def __init__(
        self, *, nodes: Iterable[int] = (), replies: Iterable[Coming] = (), unsent: Iterable[int] = ()
    ) -> None:
        self.nodes, self.replies, self.unsent = list(nodes), list(replies), set(unsent)
        self.since: dict[int, str] = {}  # by node, since when it is connected
        self.sent: list[Message] = []
        self._made = time.monotonic()
        self._lock = threading.Lock()

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

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=node, last_activated_at=self.since.get(node, "")) for node in self.nodes]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        new, n_before = list(messages), len(self.sent)
        self.sent += new
        return [
            "" if message.metadata.dst_node_id in self.unsent else f"m{n_before + index}"
            for index, message in enumerate(new)
        ]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        wanted, age_s = set(message_ids), time.monotonic() - self._made
        with self._lock:
            come = [
                reply
                for reply in self.replies
                if reply.message.metadata.reply_to_message_id in wanted and reply.after_s <= age_s
            ]
            self.replies = [reply for reply in self.replies if reply not in come]
        time.sleep(sum(reply.upload_s for reply in come))
        return [reply.message for reply in come]
