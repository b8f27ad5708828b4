"""The SuperNode's process ends with Flower's loop, tells of questions that may be lost, and sends a piece once."""

import os
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.proto.message_pb2 import Message, PushObjectRequest, PushObjectResponse
from flwr.supercore.constant import TaskType
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.superexec.executor import ExecutionSpec, LaunchResultStatus
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.nodestate import NodeStateFactory

import client.flower.supernode
from client.flower.supernode import (
    FLOWER,
    LEASE_S,
    OneCourier,
    lend_longer,
    refuse_other_flower,
    speak_tls_1_3,
)
from tests.waiting import PATIENCE_S

PROGRAM = Path(client.flower.supernode.__file__).read_text(encoding="utf-8")


# Flower's command is a few words here; everything else is as it is, the launcher too.
STAND_IN = """
import sys, threading, time
import flwr.supernode.cli
def flower_supernode():
    {loop}
flwr.supernode.cli.flower_supernode = flower_supernode
exec(sys.argv.pop(1))
"""


def _run_program(loop: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", STAND_IN.format(loop=loop), PROGRAM, "--host", "127.0.0.1", "--port", "9"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize(
    ("loop", "status"), [("return", 1), ("raise ValueError('lost')", 1), ("sys.exit(3)", 3)], ids=str
)
def test_supernode_ends_with_its_loop_whatever_threads_flower_has_left(loop: str, status: int) -> None:
    lasting = "" if "exit" in loop else "threading.Thread(target=time.sleep, args=(3600,)).start(); "

    done = _run_program(lasting + loop)  # whose pipes end only with the launcher

    assert done.returncode == status, done.stderr
    assert ("ValueError: lost" in done.stderr) is ("lost" in loop)


def test_supernode_ends_with_its_launcher() -> None:
    kill = "import psutil; [one.kill() for one in psutil.Process().children()]; time.sleep(3600)"

    done = _run_program(kill)

    assert done.returncode == 1
    assert "The launcher of couriers has ended" in done.stdout


def test_another_version_of_flower_is_refused() -> None:
    refuse_other_flower(FLOWER)
    with pytest.raises(SystemExit, match=r"flwr: expected 1\.41\.0, .*, got 1\.42\.0\. Install hipfed anew\."):
        refuse_other_flower("1.42.0")


def test_there_is_one_courier_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()

    def be_courier(_address: str, token: str) -> None:
        os.read(reading, 1)
        os._exit(0 if token == TOKEN else 1)

    monkeypatch.setattr(client.flower.supernode, "_be_courier", be_courier)
    executor, types = OneCourier("127.0.0.1:9"), {TaskType.CLIENT_APP}
    spec = ExecutionSpec(
        task_type=TaskType.CLIENT_APP,
        runtime_api_address="127.0.0.1:9",
        token=TOKEN,
        insecure=True,
        root_certificates_path=None,
        runtime_dependency_install=False,
        parent_pid=None,
        suppress_output=False,
        task_id=1,
    )
    assert executor.get_eligible_capacity(types) == (types, set())

    assert executor.launch(spec).status == LaunchResultStatus.ACCEPTED
    executor.reconcile()
    assert executor.get_eligible_capacity(types) == (set(), set())
    os.write(writing, b".")

    end = time.monotonic() + 10
    while executor.get_eligible_capacity(types) != (types, set()):
        assert time.monotonic() < end
        executor.reconcile()


def test_courier_has_longer_for_its_first_word_and_as_long_as_ever_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HEARTBEAT_DEFAULT_INTERVAL", "HEARTBEAT_PATIENCE"):
        monkeypatch.setattr(in_memory_corestate, name, getattr(in_memory_corestate, name))  # put back at the end
    usual_s = in_memory_corestate.HEARTBEAT_PATIENCE * in_memory_corestate.HEARTBEAT_DEFAULT_INTERVAL
    lend_longer()
    state: Any = NodeStateFactory(objectstore_factory=ObjectStoreFactory()).state()
    task = state.create_task(task_type=TaskType.CLIENT_APP, run_id=1, fab_hash="0")
    assert task is not None

    def left_s() -> float:
        return float((state.task_token_store[task].active_until - datetime.now(UTC)).total_seconds())

    assert state.claim_task(task)
    assert left_s() == pytest.approx(LEASE_S, abs=5)
    assert state.activate_task(task)
    assert left_s() == pytest.approx(usual_s, abs=5)
    assert state.acknowledge_task_heartbeat(task)
    assert left_s() == pytest.approx(usual_s, abs=5)


def test_supernode_speaks_no_older_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protobuf_client, "ssl", ssl)
    speak_tls_1_3()

    context = protobuf_client.ssl.SSLContext(protobuf_client.ssl.PROTOCOL_TLS_CLIENT)

    assert context.minimum_version == ssl.TLSVersion.TLSv1_3
    assert context.verify_mode == ssl.CERT_REQUIRED


in_memory_corestate: Any = import_module("flwr.supercore.corestate.in_memory_corestate")
protobuf_client: Any = import_module("flwr.supercore.protobuf.client")
TOKEN = "0" * 32
BROKE, REFUSED = httpx.ReadError("cut"), httpx.ConnectError("nobody there")
NONE, QUESTION = PullMessagesResponse(), PullMessagesResponse(messages_list=[Message()])


@pytest.mark.parametrize(
    ("outcomes", "told"),
    [
        ([NONE, QUESTION, NONE], 0),
        ([REFUSED, NONE], 0),  # nothing was asked
        ([BROKE], 0),  # what is lost is asked for again once the coordinator is back
        ([BROKE, NONE], 1),
        ([BROKE, REFUSED, REFUSED, NONE, NONE], 1),
        ([httpx.ReadTimeout("half a minute"), NONE], 1),
        ([BROKE, QUESTION, NONE], 0),  # it was not lost
        ([BROKE, NONE, BROKE, NONE], 2),
    ],
    ids=["quiet", "away", "broken", "back", "back later", "timeout", "not lost", "twice"],
)
def test_question_that_a_broken_connection_may_have_swallowed_is_told(
    outcomes: list[httpx.HTTPError | PullMessagesResponse],
    told: int,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    coming = iter(outcomes)

    def pull(_client: FleetHttpClient, _request: PullMessagesRequest) -> PullMessagesResponse:
        outcome = next(coming)
        if isinstance(outcome, httpx.HTTPError):
            raise outcome
        return outcome

    monkeypatch.setattr(FleetHttpClient, "PullMessages", pull)
    client.flower.supernode.tell_lost_questions()
    coordinator = FleetHttpClient("https://coordinator.example.org")

    for outcome in outcomes:
        if isinstance(outcome, httpx.HTTPError):
            with pytest.raises(type(outcome)):
                coordinator.PullMessages(PullMessagesRequest())
        else:
            assert coordinator.PullMessages(PullMessagesRequest()) is outcome

    assert capfd.readouterr().out.splitlines() == told * [client.flower.supernode.LOST]


BAD_GATEWAY = httpx.HTTPStatusError("502", request=httpx.Request("POST", "https://x"), response=httpx.Response(502))


@pytest.mark.parametrize(
    ("outcomes", "stored"),
    [
        ([True], True),
        ([False], False),  # the session has expired
        ([REFUSED, False], False),  # nothing was sent
        ([BROKE, False], True),  # it was taken, and the word of it lost
        ([BROKE, REFUSED, BAD_GATEWAY, False], True),
        ([BROKE, True], True),
        ([BROKE, False, False], False),  # a later answer with the same piece
    ],
    ids=["stored", "refused", "away", "told too late", "told far too late", "again", "once"],
)
def test_piece_that_was_stored_over_a_connection_that_broke_counts(
    outcomes: list[httpx.HTTPError | bool], *, stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming = iter(outcomes)

    def push(_client: FleetHttpClient, _request: PushObjectRequest) -> PushObjectResponse:
        outcome = next(coming)
        if isinstance(outcome, httpx.HTTPError):
            raise outcome
        return PushObjectResponse(stored=outcome)

    monkeypatch.setattr(FleetHttpClient, "PushObject", push)
    client.flower.supernode.take_stored_pieces()
    coordinator = FleetHttpClient("https://coordinator.example.org")
    request = PushObjectRequest(session_id="s", object_id="o")

    for outcome in outcomes:
        if isinstance(outcome, httpx.HTTPError):
            with pytest.raises(type(outcome)):
                coordinator.PushObject(request)
        else:
            answer = coordinator.PushObject(request)

    assert answer.stored is stored
