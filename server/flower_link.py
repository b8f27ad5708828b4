"""The seam over Flower's Grid.

Replies are pulled by us every POLL_S and handed over one by one, so a large model's answers are never all in memory,
and no question waits on Flower's own slower poll.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from server.link import Answer

POLL_S = 0.1


class FlowerLink:
    """Questions over a running Flower federation."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def nodes(self) -> frozenset[int]:
        """Ids of the connected SuperNodes."""
        return frozenset(self._grid.get_node_ids())

    def ask(self, kind: str, questions: Mapping[int, RecordDict], *, deadline_s: float) -> Iterator[Answer]:
        """As `Link.ask`; a failed or silent node is named by Flower's error code or by the deadline."""
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
                    yield Answer(node, None, f"Flower error {reply.error.code}")
                else:
                    yield Answer(node, reply.content)
            if not pulled:
                time.sleep(POLL_S)
        for node in waiting.values():
            yield Answer(node, None, f"no answer within {deadline_s:g} s")
