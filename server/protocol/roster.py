"""Step 1 of a run, the handshake: which hospitals take part, and why the others do not."""

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from server.protocol.hospitals import Hospitals
from server.protocol.link import Link
from server.protocol.quorum import require_quorum
from shared_model.config import Settings
from shared_model.errors import StudyError
from shared_model.protocol.messages import HandshakeReply, HandshakeRequest
from shared_model.protocol.used_extensions import used_extensions
from shared_model.version import own_version

log = logging.getLogger("hipfed.server")

_LATE = "its SuperNode was not connected at the handshake, nor within wait-s (see `hipfed-server status`)"


@dataclass(frozen=True)
class Roster:
    """The hospitals of a run.

    Attributes:
        names: hospital's name by node, for those that take part.
        modalities: by name, what the hospital has.
        versions: by name, its hipfed version.
        excluded: reason by name (or "node ID" where even the name is unknown).
        signing_keys: of secure sums, by node; "" where a hospital takes part in none.
    """

    names: dict[int, str]
    modalities: dict[str, list[str]]
    versions: dict[str, str]
    excluded: dict[str, str]
    signing_keys: dict[int, str] = field(default_factory=dict)


def wait_for_nodes(
    link: Link, settings: Settings, *, wanted: frozenset[int] | None = None, poll_s: float = 0.5
) -> frozenset[int]:
    """Wait until the expected hospitals are connected, or `wait-s` is over; the nodes to ask.

    Args:
        link: the way to the hospitals.
        settings: of the run.
        wanted: the nodes to wait for, and none else is asked; None for any, `expected-sites` of them.
        poll_s: between two looks.

    Raises:
        StudyError: fewer than `min-sites` are connected then.
    """
    end = time.monotonic() + settings.wait_s
    while True:
        nodes = link.nodes() if wanted is None else link.nodes() & wanted
        n_wanted = max(settings.expected_sites, settings.min_sites) if wanted is None else len(wanted)
        if len(nodes) >= n_wanted or time.monotonic() >= end:
            break
        time.sleep(poll_s)
    if len(nodes) < settings.min_sites:
        raise StudyError(
            f"connecting: expected at least {settings.min_sites} hospitals within {settings.wait_s:g} s (min-sites), "
            f"got {len(nodes)}. Start the missing ones, or say --set min-sites={len(nodes)} if so few are meant."
        )
    return nodes


def shake_hands(hospitals: Hospitals, *, enrolled: Mapping[int, str] | None = None) -> Roster:
    """Ask every connected node, or every enrolled one, to take part.

    Args:
        hospitals: of whom no name is known yet.
        enrolled: the hospitals that were connected when the run was begun: name by node, as its key was enrolled. They
            are waited for, no other node is asked, and one that has another name is excluded. None where no keys are
            enrolled, as in a simulation: there hospitals name themselves.

    Raises:
        StudyError: fewer than `min-sites` agree; the message names every exclusion.
    """
    settings = hospitals.settings
    nodes = wait_for_nodes(hospitals.link, settings, wanted=None if enrolled is None else frozenset(enrolled))
    request = HandshakeRequest(study=hospitals.study, hipfed=own_version())
    own = used_extensions(hospitals.schema, settings)
    answers = replace(hospitals, names=enrolled or {}).ask(request, nodes=nodes)
    attendance, agreed = answers.attendance, dict[int, HandshakeReply]()
    attendance.failed |= {name: _LATE for node, name in (enrolled or {}).items() if node not in nodes}
    for node, reply in sorted(answers.own.items()):
        called = (enrolled or {}).get(node, f"node {node}")
        taken = {other.site for other in agreed.values()}
        if fault := _fault_of_name(reply.site, taken, enrolled, node) or _fault_of_packages(reply, own):
            attendance.answered.remove(called)
            attendance.failed[called] = fault
        else:
            agreed[node] = reply
    require_quorum(attendance, min_sites=settings.min_sites, step="handshake")
    others = sorted(reply.site for reply in agreed.values() if reply.version != own_version())
    if others:
        log.info("hipfed here is %s; another version of the same protocol: %s", own_version(), ", ".join(others))
    ordered = sorted(agreed.items(), key=lambda item: item[1].site)
    return Roster(
        names={node: reply.site for node, reply in ordered},
        modalities={reply.site: reply.modalities for _, reply in ordered},
        versions={reply.site: reply.version for _, reply in ordered},
        excluded=dict(sorted(attendance.failed.items())),
        signing_keys={node: reply.signing_key for node, reply in ordered},
    )


def _fault_of_name(name: str, taken: Collection[str], enrolled: Mapping[int, str] | None, node: int) -> str:
    """Why a hospital cannot take part under the name that it gives itself; "" if it can."""
    if enrolled is not None and name != enrolled[node]:
        return f"site name: expected {enrolled[node]}, as its key was enrolled, got {name}. Mend hospital.toml there."
    if name in taken:
        return f"site name {name}: expected a name of its own, got one that is taken."
    return ""


def _fault_of_packages(reply: HandshakeReply, own: Mapping[str, str]) -> str:
    """Why a hospital cannot take part with its packages; "" if it can."""
    others = sorted(key for key in {*own, *reply.extensions} if own.get(key) != reply.extensions.get(key))
    if not others:
        return ""
    expected, got = ((each.get(others[0]) or "none") for each in (own, reply.extensions))
    return f"package of {others[0]}: expected the coordinator's {expected}, got {got}. Install the same everywhere."
