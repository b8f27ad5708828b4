"""What the SuperNode's words mean, and how it is started."""

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

import client.deployment.courier_process
import client.flower.supernode
from client.deployment.courier_place import courier_place
from client.deployment.courier_process import MOST_AHEAD_S, MOST_BEHIND_S, CourierPart
from client.deployment.supervise import describe_site
from client.home import HospitalHome, HospitalSettings
from shared_model.identity.coordinator_status import CoordinatorStatus, UnreachableError
from tests.waiting import wait_until

UP = {"worker": "ready", "supernode": "ready"}
SERVER = "fed.example.org:9443"

# As flwr 1.41 writes them.
CONNECTED = "\x1b[92mINFO \x1b[0m:      SuperNode ID: 17791383625856332810"
LOST = "\x1b[93mWARNING \x1b[0m:   Connection attempt failed, retrying in 0.44 seconds"
BACK = "\x1b[92mINFO \x1b[0m:      Connection successful after 9.15 seconds and 5 tries."
SENT = "\x1b[92mINFO \x1b[0m:      Sent successfully"
ASKED = "\x1b[92mINFO \x1b[0m:      Receiving: query.explain message (ID: 00ab)"
WRONG_CA = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local issuer certificate"
SESSION = "[code: 2004] Failed to activate SuperNode."


def _part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: CoordinatorStatus | UnreachableError) -> CourierPart:
    def fetch(*_: object, **__: object) -> CoordinatorStatus:
        if isinstance(answer, UnreachableError):
            raise answer
        return answer

    monkeypatch.setattr(client.deployment.courier_process, "fetch_status", fetch)
    settings = HospitalSettings(name="sint-jan", data="/d", server=SERVER, cache="/c")

    def separate(command: Sequence[str], port: int) -> Sequence[str]:
        return ["separated", str(port), *command]

    return CourierPart(
        settings,
        courier_place(HospitalHome(tmp_path), courier_user=None),
        node_config={"socket": "/s", "hospital": "sint-jan"},
        separate=separate,
    )


def _answer(*, ahead: timedelta = timedelta(0)) -> CoordinatorStatus:
    return CoordinatorStatus("0.1.0", 3, datetime.now(UTC) + ahead)


def test_command_is_separated_and_names_keys_socket_and_a_port_on_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (list(_part(tmp_path, monkeypatch, _answer()).command()) for _ in range(2))

    assert first[0] == "separated"
    assert first[first.index("--node-config") + 1] == 'socket="/s" hospital="sint-jan"'
    assert first[first.index("--superlink") + 1] == SERVER
    assert first[first.index("--root-certificates") + 1] == str(tmp_path / "ca.crt")
    assert first[first.index("--auth-supernode-private-key") + 1] == str(tmp_path / "keys" / "node")
    assert first[first.index("--host") + 1] == "127.0.0.1"
    assert first[first.index("--port") + 1] == first[1]
    assert second[1].isdigit()


@pytest.mark.parametrize(
    ("words", "lost"),
    [
        ("ERROR\x1b[0m :     Failed to receive message 5f3a: Server disconnected", "a question"),
        ("ERROR\x1b[0m :     Failed to send message 5f3a: Server disconnected", "an answer"),
        ("INFO \x1b[0m:      Run ID 42 is not in `RUNNING` status. Ignoring message 5f3a.", "a question"),
    ],
)
def test_supernode_that_dropped_a_message_must_start_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, lost: str
) -> None:
    part = _part(tmp_path, monkeypatch, _answer())
    part.observe("Sent successfully")
    assert part.must_restart() == ""

    part.observe(f"\x1b[91m{words}")

    assert part.must_restart() == f"{lost} was lost on the way; the coordinator asks again"
    part.forget()
    assert part.must_restart() == ""
    part.observe("INFO :      Run ID 42 is not in `RUNNING` status. Ignoring reply message 5f3a.")
    assert part.must_restart() == ""  # an answer to a run that has ended: nobody waits for it


def test_supernode_that_may_have_lost_a_question_must_start_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = _part(tmp_path, monkeypatch, _answer())

    part.observe(client.flower.supernode.LOST)

    assert part.must_restart().startswith("a question may have been lost")
    part.forget()
    assert part.must_restart() == ""


def test_environment_is_the_couriers_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_HOME", "/of/the/user")
    monkeypatch.setenv("FLWR_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("HIPFED_CACHE", "/the/cache")
    for name in ("HTTPS_PROXY", "https_proxy", "grpc_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "http://proxy.example.org:3128")

    environment = _part(tmp_path, monkeypatch, _answer()).environment

    assert environment["FLWR_HOME"] == str(tmp_path / "courier" / "flower")
    assert environment["TMPDIR"] == str(tmp_path / "courier" / "tmp")
    assert not [name for name in environment if "proxy" in name.lower()]
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["PATH"].endswith(os.environ["PATH"])
    assert not {"FLWR_LOG_LEVEL", "HIPFED_CACHE"} & set(environment)


@pytest.mark.parametrize(
    ("lines", "status", "words", "min_wait_s"),
    [
        ([WRONG_CA], 1, "a certificate that ca.crt did not sign", 60.0),
        ([SESSION], 1, "former session, which ends within a minute", 15.0),
        (["SuperNode terminated gracefully."], 0, "not enrolled yet, or was revoked", 60.0),
        (["no such file: keys/node"], 1, "supernode ended by itself (exit status 1): no such file: keys/node", 0.0),
        ([], -9, "supernode was killed (SIGKILL)", 0.0),
    ],
)
def test_end_is_explained_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], status: int, words: str, min_wait_s: float
) -> None:
    part = _part(tmp_path, monkeypatch, _answer())
    for line in lines:
        part.observe(line)

    ending = part.explain(status)

    assert words in ending.reason
    assert ending.min_wait_s == min_wait_s


@pytest.mark.parametrize(
    ("ahead_s", "told"), [(-20, "20 s ahead"), (-3, ""), (5, ""), (400, "00 s behind"), (-400, "00 s ahead")]
)
def test_refusal_with_clocks_that_differ_more_than_flower_takes_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead_s: float, told: str
) -> None:
    reason = _part(tmp_path, monkeypatch, _answer(ahead=timedelta(seconds=ahead_s))).explain(0).reason

    assert ("expected a clock at most" in reason) is bool(told)
    assert told in reason


def test_tolerated_clocks_are_those_of_flower() -> None:
    assert (MOST_AHEAD_S, MOST_BEHIND_S) == (SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE)


def test_refusal_by_a_coordinator_that_has_gone_says_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = _part(tmp_path, monkeypatch, UnreachableError("nobody there.")).explain(0).reason

    assert reason == f"{SERVER} refused this hospital's key. Now: nobody there."


def test_line_says_connection_worker_and_last_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = _part(tmp_path, monkeypatch, _answer())
    assert describe_site(SERVER, part, states=UP) == f"not connected to {SERVER}; worker ready; no question yet"
    assert not part.is_ready()

    part.observe(CONNECTED)
    part.observe(ASKED)

    assert part.is_ready()
    line = describe_site(SERVER, part, states=UP)
    assert line.startswith(f"connected to {SERVER} since {datetime.now(UTC):%Y-%m-%d} ")
    ended = describe_site(SERVER, part, states={"worker": "ready", "supernode": "waiting"})
    assert ended.startswith(f"not connected to {SERVER}; worker ready; ")
    assert re.search(r"UTC; worker ready; question query\.explain unanswered since \d\d:\d\d UTC \(0 s\)$", line)
    part.observe(SENT)
    answered = describe_site(SERVER, part, states=UP)
    assert answered.endswith("UTC; worker ready; last question: query.explain, 0 s ago")


def _wait_for_trouble(part: CourierPart) -> str:
    wait_until(lambda: bool(part.trouble()))
    return part.trouble()


def test_lost_connection_is_trouble_until_it_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.deployment.courier_process, "DOUBT", timedelta(0))
    part = _part(tmp_path, monkeypatch, UnreachableError("no route."))
    part.observe(CONNECTED)
    assert part.trouble() == ""

    part.observe(LOST)

    assert _wait_for_trouble(part).endswith("no route. Trying again")
    assert describe_site(SERVER, part, states=UP).startswith(f"reconnecting to {SERVER}; ")
    part.observe(BACK)
    assert part.trouble() == ""


def test_coordinator_that_never_answered_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.deployment.courier_process, "DOUBT", timedelta(0))
    part = _part(tmp_path, monkeypatch, UnreachableError("refused."))

    part.observe(LOST)

    assert _wait_for_trouble(part).startswith("no connection since ")


def test_complaint_of_another_program_is_no_trouble_while_the_coordinator_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.deployment.courier_process, "DOUBT", timedelta(0))
    part = _part(tmp_path, monkeypatch, _answer())
    part.observe(CONNECTED)
    part.observe(LOST)

    wait_until(lambda: part._doubt_since is None)

    assert part.trouble() == ""
