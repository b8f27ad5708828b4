from __future__ import annotations

import pytest
from flwr.app import RecordDict

from server.protocol.link import Answer
from server.protocol.quorum import Attendance, ask_sites, require_quorum
from shared_model.errors import ProtocolError, StudyError
from shared_model.protocol.messages import STATISTICS, HandshakeReply, Refusal
from tests.server.faulty_links import ScriptedLink

NAMES = {0: "east", 1: "north", 2: "south"}
GOOD = HandshakeReply(site="any", version="1", modalities=[]).to_record()


def _ask(link: ScriptedLink, *, names: dict[int, str] | None = None) -> tuple[Attendance, list[int]]:
    accepted: list[int] = []
    attendance = ask_sites(
        link,
        STATISTICS,
        dict.fromkeys(range(link.n_nodes), GOOD),
        names=NAMES if names is None else names,
        deadline_s=1.0,
        accept=lambda node, _: accepted.append(node),
    )
    return attendance, accepted


def test_ask_sites_names_who_missed_the_deadline_and_goes_on_with_the_others() -> None:
    late = Answer(1, None, "no answer within 1 s")

    attendance, accepted = _ask(ScriptedLink(3, lambda _, node, __: late if node == 1 else Answer(node, GOOD)))

    assert attendance.asked == ["east", "north", "south"]
    assert attendance.answered == ["east", "south"]
    assert attendance.failed == {"north": "no answer within 1 s"}
    assert accepted == [0, 2]


def test_ask_sites_keeps_the_reason_of_a_refusal_and_does_not_accept_it() -> None:
    refusal = Refusal(site="north", reason="data check failed: unknown-level (3)").to_record()

    attendance, accepted = _ask(ScriptedLink(3, lambda _, node, __: Answer(node, refusal if node == 1 else GOOD)))

    assert attendance.failed == {"north": "data check failed: unknown-level (3)"}
    assert accepted == [0, 2]


def test_ask_sites_excludes_an_answer_that_accept_rejects() -> None:
    def accept(node: int, _: RecordDict) -> None:
        if node == 0:
            raise ProtocolError("east: wrong shape")

    link = ScriptedLink(3, lambda _, node, __: Answer(node, GOOD))
    attendance = ask_sites(link, STATISTICS, dict.fromkeys(range(3), GOOD), names=NAMES, deadline_s=1.0, accept=accept)

    assert attendance.answered == ["north", "south"]
    assert attendance.failed == {"east": "east: wrong shape"}


def test_ask_sites_excludes_a_refusal_that_cannot_be_read() -> None:
    broken = Refusal(site="north", reason="no").to_record()
    broken.config_records["header"]["json"] = "{"

    attendance, accepted = _ask(ScriptedLink(3, lambda _, node, __: Answer(node, broken if node == 1 else GOOD)))

    assert list(attendance.failed) == ["north"]
    assert "Refusal" in attendance.failed["north"]
    assert accepted == [0, 2]


def test_ask_sites_calls_an_unknown_site_by_its_node_or_by_the_name_in_its_refusal() -> None:
    refusal = Refusal(site="south", reason="no").to_record()
    replies = {0: Answer(0, GOOD), 1: Answer(1, None, "Flower error 2"), 2: Answer(2, refusal)}

    attendance, _ = _ask(ScriptedLink(3, lambda _, node, __: replies[node]), names={})

    assert attendance.answered == ["node 0"]
    assert attendance.failed == {"node 1": "Flower error 2", "south": "no"}


def test_ask_sites_counts_the_payload_both_ways() -> None:
    small = HandshakeReply(site="a", version="1", modalities=[]).to_record()

    attendance, _ = _ask(ScriptedLink(3, lambda _, node, __: Answer(node, small)))

    # the header: its type and its JSON text
    down = len("HandshakeReply") + len('{"site":"any","version":"1","modalities":[]}')
    up = len("HandshakeReply") + len('{"site":"a","version":"1","modalities":[]}')
    assert (attendance.bytes_down, attendance.bytes_up) == (3 * down, 3 * up)


def test_require_quorum_names_every_reason_when_too_few_answered() -> None:
    attendance = Attendance(
        asked=["east", "north", "south"], answered=["east"], failed={"north": "reason one", "south": "reason two"}
    )

    with pytest.raises(StudyError) as caught:
        require_quorum(attendance, min_sites=2, step="round 3 (joint)")

    assert str(caught.value).splitlines() == [
        "round 3 (joint): expected answers of at least 2 hospitals (min-sites), got 1 of 3. Failed:",
        "  north: reason one",
        "  south: reason two",
    ]


def test_require_quorum_is_content_with_exactly_min_sites() -> None:
    attendance = Attendance(asked=["east", "north"], answered=["east"], failed={"north": "late"})

    require_quorum(attendance, min_sites=1, step="statistics")
    with pytest.raises(StudyError, match="at least 2"):
        require_quorum(attendance, min_sites=2, step="statistics")
