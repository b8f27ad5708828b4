"""A hospital that asks for a message is kept waiting for one, within limits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from server.deployment.gateway import Gateway
from server.deployment.gateway_process import find_active
from server.enrolment.coordinator_home import CoordinatorHome
from tests.server.coordinator_home import enrol, make_home, revoke
from tests.server.running_gateway import (
    FakeSuperLink,
    raw_request,
    serve_gateway,
    serve_superlink,
    serving,
    signed_headers,
    speak,
    status_of,
)
from tests.waiting import PATIENCE_S, wait_until

PULL = "/v1/fleet/pull-messages"


@dataclass
class Site:
    """A running gateway before a SuperLink that has nothing at first, and an enrolled hospital's key."""

    home: CoordinatorHome
    key: ec.EllipticCurvePrivateKey
    superlink: QuietSuperLink

    def ask(self, target: str = PULL, *, timeout_s: float = 2 * PATIENCE_S) -> bytes:
        return speak(self.home, raw_request(target, signed_headers(self.key)), timeout_s=timeout_s)


@dataclass
class QuietSuperLink(FakeSuperLink):
    """Has nothing for a hospital until `due` requests have come; then one byte."""

    due: int = 1

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As Flower's own, which sends the length of what it answers."""
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            return
        self.requests.append((scope["raw_path"].decode(), dict(scope["headers"])))
        body = b"m" if len(self.requests) >= self.due else b""
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@contextmanager
def _site(folder: Path, *, due: int, hold_s: float = PATIENCE_S) -> Iterator[Site]:
    home = make_home(folder / "home")
    site = Site(home, enrol(home.folder, "north"), QuietSuperLink(due=due))
    registry = home.open_registry()
    gateway = Gateway(
        home.settings.superlink,
        ca=home.ca,
        find_hospital=lambda key: find_active(registry, key),
        seen=lambda *_: None,
        hold_s=hold_s,
    )
    with registry, serving(serve_superlink(home, site.superlink)), serving(serve_gateway(home, gateway)):
        yield site


def test_hospital_gets_a_message_that_comes_after_it_asked_in_the_same_answer(tmp_path: Path) -> None:
    with _site(tmp_path, due=3) as site:
        started = time.monotonic()
        answer = site.ask()

    assert answer.endswith(b"\r\n\r\nm")
    assert time.monotonic() - started < PATIENCE_S  # for which it would have been held
    assert len(site.superlink.requests) == 3


def test_hospital_gets_an_empty_answer_once_it_was_kept_waiting_long_enough(tmp_path: Path) -> None:
    with _site(tmp_path, due=1000, hold_s=0.5) as site:
        started = time.monotonic()
        answer = site.ask()

    assert time.monotonic() - started > 0.5
    assert status_of(answer) == 200
    assert answer.endswith(b"\r\n\r\n")


def test_other_requests_are_answered_empty_at_once(tmp_path: Path) -> None:
    with _site(tmp_path, due=1000) as site:
        answer = site.ask("/v1/fleet/send-node-heartbeat")

    assert status_of(answer) == 200
    assert len(site.superlink.requests) == 1


def test_hospital_that_is_revoked_while_it_waits_is_refused(tmp_path: Path) -> None:
    with _site(tmp_path, due=1000) as site:
        threading.Timer(0.5, revoke, (site.home.folder, "north")).start()
        answer = site.ask()

    assert status_of(answer) == 401


def test_nothing_is_asked_for_a_hospital_that_went_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the SuperLink handed out then would be lost."""
    monkeypatch.setattr("server.deployment.gateway.LONGEST_LOOK_S", 0.1)

    with _site(tmp_path, due=10**6) as site:
        with pytest.raises(TimeoutError):
            site.ask(timeout_s=0.5)
        wait_until(lambda: _stops_within(1.0, site.superlink.requests))


def _stops_within(seconds: float, requests: Sized) -> bool:
    """Whether no more requests come for some seconds."""
    before = len(requests)
    time.sleep(seconds)
    return len(requests) == before
