"""The seam over Flower's Grid.

Replies are handed over one by one, so that a large model's answers are never all in memory. A question that was lost
with the program that held it is put again: an answer changes nothing that a second one would not change alike.
"""

import logging
import math
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import httpx
from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from server.flower.replies import Replies
from server.protocol.link import Answer

log = logging.getLogger("hipfed.server")

LOOK_S = 1.0  # between two looks at who is connected
# A killed SuperNode is let in again when its old session ends, within 75 s; a machine that starts anew takes longer.
RETURN_S = 180.0
MOST_LOSSES = 3

_LACK_OF_MEMORY = "a worker process died, often for lack of memory; if the run ends, continue with --resume"
_FAILURES = {
    ErrorCode.UNKNOWN: _LACK_OF_MEMORY,
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: "hipfed could not be loaded there; see Flower's log there (flower.log)",
    ErrorCode.CLIENT_APP_RAISED_EXCEPTION: "hipfed failed there; see Flower's log there (flower.log)",
    ErrorCode.MESSAGE_UNAVAILABLE: "the question was lost; ask for a longer deadline-s",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "no answer before the question expired; ask for a longer deadline-s",
    ErrorCode.NODE_UNAVAILABLE: "its SuperNode is gone (`hipfed-server status` tells whether it was revoked); start it "
    "again, and if the run ends, continue with --resume",
    ErrorCode.CLIENT_APP_CRASHED: _LACK_OF_MEMORY,
}
_LOST = frozenset({ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE, ErrorCode.CLIENT_APP_CRASHED})


@dataclass
class _Round:
    """Questions of one kind that are under way.

    Attributes:
        kind: message kind.
        questions: one record a node.
        end: the deadline, on the monotonic clock.
        unanswered: nodes whose answer is still to come; the first one of a node counts.
        waiting: node by id of each message that was put to it and has no reply.
        latest: by node, id of the message that was put to it last: an error of an earlier one says nothing any more.
        since: by node, since when its SuperNode was connected when it was asked, as Flower writes it.
        lost: by node whose question is to be put again, Flower's error code.
        losses: how often a node lost its question, other than by being away.
    """

    kind: str
    questions: Mapping[int, RecordDict]
    end: float
    unanswered: set[int]
    waiting: dict[str, int] = field(default_factory=dict)
    latest: dict[int, str] = field(default_factory=dict)
    since: dict[int, str] = field(default_factory=dict)
    lost: dict[int, int] = field(default_factory=dict)
    losses: dict[int, int] = field(default_factory=dict)

    @property
    def left_s(self) -> float:
        """Time to the deadline."""
        return self.end - time.monotonic()


class FlowerLink:
    """Questions over a running Flower federation.

    Args:
        grid: Flower's.
        return_s: how long a SuperNode that is gone is waited for, within the deadline: once for each absence, so that a
            hospital that left for good costs this time once and not in every round.
    """

    def __init__(self, grid: Grid, *, return_s: float = RETURN_S) -> None:
        self._grid, self._return_s = grid, return_s
        self._gone_since: dict[int, float] = {}
        self._looked = -math.inf

    def nodes(self) -> frozenset[int]:
        """Ids of the connected SuperNodes; none where the SuperLink is too busy to tell."""
        return frozenset(self._look() or ())

    def ask(self, kind: str, questions: Mapping[int, RecordDict], *, deadline_s: float) -> Iterator[Answer]:
        """As `Link.ask`; a failed or silent node is named by what Flower's error code means, or by the deadline."""
        asked = _Round(kind, questions, time.monotonic() + deadline_s, unanswered=set(questions))
        replies = Replies(self._grid)
        try:
            self._note_returned(asked, self._look() or {})
            yield from self._put(asked, sorted(questions), replies)
            while asked.unanswered and asked.left_s > 0:
                yield from self._hear(asked, replies)
                if time.monotonic() - self._looked > LOOK_S and (connected := self._look()) is not None:
                    self._note_returned(asked, connected)
                    yield from self._put(asked, connected.keys() & asked.lost.keys(), replies)
                    yield from self._give_up(asked, asked.lost.keys() - connected.keys())
        finally:
            replies.close()
        for node in sorted(asked.unanswered):
            code = asked.lost.get(node)
            yield Answer(node, None, f"no answer within {deadline_s:g} s" if code is None else describe_failure(code))

    def _look(self) -> Mapping[int, str] | None:
        """Connected SuperNodes, and since when as Flower writes it; None while the SuperLink's database is busy."""
        self._looked = time.monotonic()
        try:
            connected = {node.node_id: node.last_activated_at for node in self._grid.get_nodes()}
        except httpx.HTTPStatusError as error:
            if not error.response.is_server_error:
                raise
            return None
        for node in connected:
            self._gone_since.pop(node, None)
        return connected

    def _note_returned(self, asked: _Round, connected: Mapping[int, str]) -> None:
        """Take the questions of SuperNodes that started anew as lost: Flower says so only if asked while they are away.

        One that was only cut off may still answer the first: it counts, and the second is not heard. It does the work
        of the second all the same, so that there are no more than `MOST_LOSSES` of them.
        """
        for node in asked.unanswered & connected.keys():
            if asked.since.setdefault(node, connected[node]) == connected[node]:
                continue
            asked.since[node] = connected[node]
            if node not in asked.lost and asked.losses.get(node, 0) < MOST_LOSSES:
                asked.losses[node] = asked.losses.get(node, 0) + 1
                asked.lost[node] = ErrorCode.NODE_UNAVAILABLE
                log.warning("%s: node %d was away; the question is put again", asked.kind, node)

    def _put(self, asked: _Round, nodes: Collection[int], replies: Replies) -> Iterator[Answer]:
        """Put the question to some nodes; yields those to which it cannot be sent."""
        if not nodes or asked.left_s <= 0:
            return
        messages = [
            Message(asked.questions[node], dst_node_id=node, message_type=asked.kind, ttl=asked.left_s)
            for node in nodes
        ]
        # Flower answers an unsendable message with an empty id; replies name the message, not always the node.
        for node, message_id in zip(nodes, self._grid.push_messages(messages), strict=True):
            asked.lost.pop(node, None)
            if message_id:
                asked.waiting[message_id] = node
                asked.latest[node] = message_id
                replies.await_also([message_id])
            else:
                asked.unanswered.discard(node)
                yield Answer(node, None, "the message could not be sent")

    def _hear(self, asked: _Round, replies: Replies) -> Iterator[Answer]:
        """The next reply's answer, if one comes soon; it is let go before the one after it is taken."""
        reply = replies.next(timeout_s=min(asked.left_s, LOOK_S))
        if reply is not None and (answer := self._judge(asked, reply)):
            asked.unanswered.discard(answer.node)
            asked.lost.pop(answer.node, None)
            yield answer

    def _judge(self, asked: _Round, reply: Message) -> Answer | None:
        """The answer that a reply is; None if there was one, or another is to come."""
        message_id = reply.metadata.reply_to_message_id
        node = asked.waiting.pop(message_id)
        if node not in asked.unanswered:
            return None
        if not reply.has_error():
            return Answer(node, reply.content)
        if node in asked.lost or message_id != asked.latest[node]:
            return None
        code = reply.error.code
        if code != ErrorCode.NODE_UNAVAILABLE:
            asked.losses[node] = asked.losses.get(node, 0) + 1
        if code in _LOST and asked.losses.get(node, 0) < MOST_LOSSES:
            asked.lost[node] = code
            log.warning("%s: the question to node %d is put again: %s", asked.kind, node, describe_failure(code))
            return None
        # The reason may quote the hospital's exception: only the code is safe to keep.
        return Answer(node, None, describe_failure(code))

    def _give_up(self, asked: _Round, gone: Collection[int]) -> Iterator[Answer]:
        """Those of the nodes that are not connected whose time to return is over."""
        now = time.monotonic()
        for node in gone:
            if now - self._gone_since.setdefault(node, now) > self._return_s:
                asked.unanswered.discard(node)
                yield Answer(node, None, describe_failure(asked.lost.pop(node)))


def describe_failure(code: int) -> str:
    """What an error code of Flower means and what to do, with the code for who looks it up."""
    words = _FAILURES.get(code)
    return f"{words} (Flower error {code})" if words else f"Flower error {code}"
