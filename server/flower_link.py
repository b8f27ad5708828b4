"""The seam over Flower's Grid.

Replies are pulled by us every POLL_S and handed over one by one, so a large model's answers are never all in memory,
and no question waits on Flower's own slower poll.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from server.link import Answer

POLL_S = 0.1

_LACK_OF_MEMORY = "a worker process died, often for lack of memory; if the run ends, continue with --resume"
_FAILURES = {
    ErrorCode.UNKNOWN: _LACK_OF_MEMORY,
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: "hipfed could not be loaded there; see Flower's log there (flower.log)",
    ErrorCode.CLIENT_APP_RAISED_EXCEPTION: "hipfed failed there; see Flower's log there (flower.log)",
    ErrorCode.MESSAGE_UNAVAILABLE: "the question was lost; ask for a longer deadline-s",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "no answer before the question expired; ask for a longer deadline-s",
    ErrorCode.NODE_UNAVAILABLE: "its SuperNode is gone; start it again, and if the run ends, continue with --resume",
    ErrorCode.CLIENT_APP_CRASHED: _LACK_OF_MEMORY,
}


class FlowerLink:
    """Questions over a running Flower federation."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def nodes(self) -> frozenset[int]:
        """Ids of the connected SuperNodes."""
        return frozenset(self._grid.get_node_ids())

    def ask(self, kind: str, questions: Mapping[int, RecordDict], *, deadline_s: float) -> Iterator[Answer]:
        """As `Link.ask`; a failed or silent node is named by what Flower's error code means, or by the deadline."""
        end = time.monotonic() + deadline_s
        nodes = sorted(questions)
        messages = [Message(questions[node], dst_node_id=node, message_type=kind, ttl=deadline_s) for node in nodes]
        # Flower answers an unsendable message with an empty id; replies name the message, not always the node.
        waiting: dict[str, int] = {}
        for node, message_id in zip(nodes, self._grid.push_messages(messages), strict=True):
            if message_id:
                waiting[message_id] = node
            else:
                yield Answer(node, None, "the message could not be sent")
        while waiting and time.monotonic() < end:
            pulled = list(self._grid.pull_messages(list(waiting)))
            for reply in pulled:
                node = waiting.pop(reply.metadata.reply_to_message_id)
                if reply.has_error():
                    # The reason may quote the hospital's exception: only the code is safe to keep.
                    yield Answer(node, None, describe_failure(reply.error.code))
                else:
                    yield Answer(node, reply.content)
            if not pulled:
                time.sleep(POLL_S)
        for node in waiting.values():
            yield Answer(node, None, f"no answer within {deadline_s:g} s")


def describe_failure(code: int) -> str:
    """What an error code of Flower means and what to do, with the code for who looks it up."""
    words = _FAILURES.get(code)
    return f"{words} (Flower error {code})" if words else f"Flower error {code}"
