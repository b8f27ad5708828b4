"""The SuperNode's process ends with Flower's loop, tells of questions that may be lost, and sends a piece once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.proto.message_pb2 import Message, PushObjectRequest, PushObjectResponse
from flwr.supernode.fleet_http_client import FleetHttpClient

import client.supernode

PROGRAM = Path(client.supernode.__file__).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("loop", "status"), [("return", 1), ("raise ValueError('lost')", 1), ("sys.exit(3)", 3)], ids=str
)
def test_supernode_ends_with_its_loop_whatever_threads_flower_has_left(tmp_path: Path, loop: str, status: int) -> None:
    package = tmp_path / "flwr" / "supernode" / "cli"
    package.mkdir(parents=True)
    lasting = "" if "exit" in loop else "threading.Thread(target=time.sleep, args=(60,)).start()"
    lines = ("import sys, threading, time", "def flower_supernode():", f"    {lasting}", f"    {loop}")
    (package / "__init__.py").write_text("\n".join(lines))
    (package.parent / "fleet_http_client.py").write_text("class FleetHttpClient: PullMessages = PushObject = None")
    for folder in (package.parent, package.parent.parent):
        (folder / "__init__.py").touch()

    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == status
    assert ("ValueError: lost" in done.stderr) is ("lost" in loop)


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
    client.supernode.tell_lost_questions()
    coordinator = FleetHttpClient("https://coordinator.example.org")

    for outcome in outcomes:
        if isinstance(outcome, httpx.HTTPError):
            with pytest.raises(type(outcome)):
                coordinator.PullMessages(PullMessagesRequest())
        else:
            assert coordinator.PullMessages(PullMessagesRequest()) is outcome

    assert capfd.readouterr().out.splitlines() == told * [client.supernode.LOST]


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
    client.supernode.take_stored_pieces()
    coordinator = FleetHttpClient("https://coordinator.example.org")
    request = PushObjectRequest(session_id="s", object_id="o")

    for outcome in outcomes:
        if isinstance(outcome, httpx.HTTPError):
            with pytest.raises(type(outcome)):
                coordinator.PushObject(request)
        else:
            answer = coordinator.PushObject(request)

    assert answer.stored is stored
