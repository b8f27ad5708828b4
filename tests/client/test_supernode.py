"""The SuperNode's process ends with Flower's loop, and tells of questions that may have been lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.proto.message_pb2 import Message
from flwr.supernode.fleet_http_client import FleetHttpClient

import client.supernode

PROGRAM = Path(client.supernode.__file__).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("loop", "status"), [("return", 1), ("raise ValueError('lost')", 1), ("sys.exit(3)", 3)], ids=str
)
def test_supernode_ends_with_its_loop_whatever_threads_it_has_left(tmp_path: Path, loop: str, status: int) -> None:
    package = tmp_path / "flwr" / "supernode" / "cli"
    package.mkdir(parents=True)
    lasting = "" if "exit" in loop else "threading.Thread(target=time.sleep, args=(60,)).start()"
    lines = ("import sys, threading, time", "def flower_supernode():", f"    {lasting}", f"    {loop}")
    (package / "__init__.py").write_text("\n".join(lines))
    (package.parent / "fleet_http_client.py").write_text("class FleetHttpClient: PullMessages = None")
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
