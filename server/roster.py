"""Step 1 of a run, the handshake: which hospitals take part, and why the others do not."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import RecordDict

from server.link import Link
from server.quorum import Attendance, ask_sites, require_quorum
from shared_model.config import Settings
from shared_model.errors import ProtocolError, StudyError
from shared_model.messages import HANDSHAKE, HandshakeReply, HandshakeRequest, Study


@dataclass(frozen=True)
class Roster:
    """The hospitals of a run.

    Attributes:
        names: hospital's name by node, for those that take part.
        modalities: by name, what the hospital has.
        versions: by name, its hipfed version.
        excluded: reason by name (or "node ID" where even the name is unknown).
    """

    names: dict[int, str]
    modalities: dict[str, list[str]]
    versions: dict[str, str]
    excluded: dict[str, str]


def wait_for_nodes(link: Link, settings: Settings, *, poll_s: float = 0.5) -> frozenset[int]:
    """Wait until the expected hospitals are connected, or `wait-s` is over.

    Raises:
        StudyError: fewer than `min-sites` are connected then.
    """
    wanted = max(settings.expected_sites, settings.min_sites)
    end = time.monotonic() + settings.wait_s
    nodes = link.nodes()
    while len(nodes) < wanted and time.monotonic() < end:
        time.sleep(poll_s)
        nodes = link.nodes()
    if len(nodes) < settings.min_sites:
        raise StudyError(
            f"connecting: expected at least {settings.min_sites} hospitals within {settings.wait_s:g} s (min-sites), "
            f"got {len(nodes)}. Start the missing ones, or say --set min-sites={len(nodes)} if so few are meant."
        )
    return nodes


def shake_hands(link: Link, study: Study, settings: Settings, *, enrolled: Mapping[int, str] | None = None) -> Roster:
    """Ask every connected node to take part.

    Args:
        link: the way to the hospitals.
        study: what every question repeats.
        settings: of the run.
        enrolled: hospital's name by node, as its key was enrolled; a node that has another one, or none, is excluded.
            None where no keys are enrolled, as in a simulation: there hospitals name themselves.

    Raises:
        StudyError: fewer than `min-sites` agree; the message names every exclusion.
    """
    nodes = wait_for_nodes(link, settings)
    replies: dict[int, HandshakeReply] = {}

    def accept(node: int, record: RecordDict) -> None:
        reply = HandshakeReply.from_record(record)
        if enrolled is not None and reply.site != enrolled.get(node):
            name = enrolled.get(node, "a hospital that was enrolled when the run began")
            raise ProtocolError(
                f"site name: expected {name}, as its key was enrolled, got {reply.site}. Mend hospital.toml there."
            )
        if any(reply.site == other.site for other in replies.values()):
            raise ProtocolError(f"site name {reply.site}: expected a name of its own, got one that is taken.")
        replies[node] = reply

    record = HandshakeRequest(study=study).to_record()
    attendance: Attendance = ask_sites(
        link,
        HANDSHAKE,
        dict.fromkeys(nodes, record),
        names=enrolled or {},
        deadline_s=settings.deadline_s,
        accept=accept,
    )
    require_quorum(attendance, min_sites=settings.min_sites, step="handshake")
    ordered = sorted(replies.items(), key=lambda item: item[1].site)
    return Roster(
        names={node: reply.site for node, reply in ordered},
        modalities={reply.site: reply.modalities for _, reply in ordered},
        versions={reply.site: reply.version for _, reply in ordered},
        excluded=attendance.failed,
    )
