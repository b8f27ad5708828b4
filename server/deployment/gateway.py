"""The coordinator's only public listener: TLS, and behind it the Fleet API for enrolled hospitals, nothing else.

| request | answer |
|---|---|
| POST /v1/fleet/NAME with the signed key of an enrolled hospital | the SuperLink's own, over loopback |
| the same with another key, or without one | 401 |
| GET /hipfed/v1/status | versions and the time, for a hospital's doctor |
| anything else | 404 |

Refusals have no body and close the connection. Bodies stream both ways and are never held whole; who sends or takes one
too slowly, or sends too large a one, is cut off.

Why a process of its own before an unchanged SuperLink, and not middleware within Flower's application: Flower has no
public way to build that application, its Control API would listen on the public port with one filter between, and a
request that breaks one of the two should not end the other. What is relied upon here is the path's prefix and the three
headers with which a SuperNode signs; if they change, everything is refused. Why the signature is checked here, though
the SuperLink does so too: the SuperLink reads a body whole before that, and public keys are not secret. Why 401 and not
403: a SuperNode takes 403 for "this run is over" and goes on asking, and ends on 401. Why the path is matched as it
was sent: then no two programs can read it differently. Why an empty answer to `pull-messages` is held back: a SuperNode
asks right after its answer was sent, and then sleeps for 3 s, through which the next question would wait.
"""

import asyncio
import base64
import binascii
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from google.protobuf.message import DecodeError
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from shared_model.errors import HipfedError
from shared_model.identity.coordinator_status import STATUS_PATH
from shared_model.identity.tls import trusting
from shared_model.protocol.messages import PROTOCOL_VERSION
from shared_model.version import own_version

MAX_BODY_BYTES = 128 * 2**20  # Flower cuts arrays into pieces of 5 MiB; its largest other body is a bundle of 10 MiB
GAP_S = 30.0  # longest wait for the next piece of a body, and for a client to take one
UPSTREAM_S = 60.0
# A hospital is kept waiting for a message so long: below the 30 s after which a SuperNode gives a connection up, and
# short, because what is handed to a connection that broke unnoticed is lost.
HOLD_S = 10.0
FIRST_LOOK_S, LONGEST_LOOK_S = 0.1, 1.0  # between two looks for it

_FLEET_PATH = re.compile(r"/v1/fleet/[a-z]+(?:-[a-z]+)*")
_HOP_HEADERS = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade".split()
    + b"host expect forwarded x-forwarded-for x-forwarded-host x-forwarded-proto server date".split()
)
# An idle hospital asks these every few seconds: successes that carry nothing are not worth a line.
_PULL = "/v1/fleet/pull-messages"
_ROUTINE = (_PULL, "/v1/fleet/send-node-heartbeat")
_ROUTINE_BYTES = 1024

log = logging.getLogger("hipfed.gateway")


class _RefusedError(Exception):
    """A request that is answered with a bare status."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(status)


@dataclass
class _Exchange:
    """One request as it is told in the log."""

    client: str
    path: str
    hospital: str = "-"
    status: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    start: float = field(default_factory=time.monotonic)

    def tell(self) -> None:
        if self.status == httpx.codes.OK and self.path in _ROUTINE and self.bytes_out <= _ROUTINE_BYTES:
            return
        log.info(
            "%s %s %s %d in=%d out=%d %.3f s",
            self.client,
            self.hospital,
            self.path[:200],
            self.status,
            self.bytes_in,
            self.bytes_out,
            time.monotonic() - self.start,
        )


class Gateway:
    """The ASGI application.

    Args:
        upstream: host:port of the SuperLink.
        ca: certificate that its certificate must be signed by.
        find_hospital: the enrolled hospital of a node's public key (PEM); None if there is none, or not any more.
        seen: told a hospital's name, the path, and the kind of the question that it was handed ("" for none) after
            each request of its that the SuperLink accepted.
        max_body_bytes: of one request.
        gap_s: longest pause of a client within a body, in seconds.
        hold_s: longest wait of a hospital for a message, in seconds.
        is_ending: whether the listener is to stop, so that nobody is kept waiting.
    """

    def __init__(
        self,
        upstream: str,
        *,
        ca: Path,
        find_hospital: Callable[[bytes], str | None],
        seen: Callable[[str, str, str], None],
        max_body_bytes: int = MAX_BODY_BYTES,
        gap_s: float = GAP_S,
        hold_s: float = HOLD_S,
        is_ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self._base = f"https://{upstream}"
        self._find_hospital, self._seen = find_hospital, seen
        self._max_body_bytes, self._gap_s = max_body_bytes, gap_s
        self._hold_s, self._is_ending = hold_s, is_ending
        self._client = httpx.AsyncClient(
            verify=trusting(ca),
            trust_env=False,  # no proxy between the two
            timeout=httpx.Timeout(UPSTREAM_S, connect=5.0, pool=5.0),
            # The SuperLink closes what is idle for 5 s: nothing may be sent on such a connection.
            limits=httpx.Limits(max_connections=256, max_keepalive_connections=64, keepalive_expiry=2.0),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        client = str((scope.get("client") or ("-",))[0])
        exchange = _Exchange(client, scope.get("raw_path", b"").decode("ascii", errors="backslashreplace"))
        try:
            await self._answer(scope, receive, send, exchange)
        except _RefusedError as refused:
            exchange.status = refused.status
            headers = [(b"content-length", b"0"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": refused.status, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        finally:
            exchange.tell()

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                await self._client.aclose()
                return

    async def _answer(self, scope: Scope, receive: Receive, send: Send, exchange: _Exchange) -> None:
        if scope["type"] != "http":
            raise _RefusedError(404)
        if (scope["method"], exchange.path) == ("GET", STATUS_PATH):
            await _send_status(send, exchange)
            return
        if scope["method"] != "POST" or scope["query_string"] or not _FLEET_PATH.fullmatch(exchange.path):
            raise _RefusedError(404)
        headers = _single_headers(scope["headers"])
        exchange.hospital = await self._recognise(headers)
        length = headers.get(b"content-length", b"")
        if b"transfer-encoding" in headers or not length.isdigit():
            raise _RefusedError(411)
        if int(length) > self._max_body_bytes:
            raise _RefusedError(413)
        if exchange.path == _PULL and int(length) <= _ROUTINE_BYTES:
            await self._await_message(scope, receive, send, exchange)
        else:
            await self._forward(scope, self._read_body(receive, exchange), send, exchange)

    async def _recognise(self, headers: Mapping[bytes, bytes]) -> str:
        hospital = await asyncio.to_thread(self._authenticate, headers)
        if hospital is None:
            raise _RefusedError(401)
        return hospital

    def _authenticate(self, headers: Mapping[bytes, bytes]) -> str | None:
        """The hospital that signed the request, if it is enrolled."""
        try:
            key = base64.b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER.encode()], validate=True)
            signature = base64.b64decode(headers[FLEET_HTTP_SIGNATURE_HEADER.encode()], validate=True)
            timestamp = headers[TIMESTAMP_HEADER.encode()]
        except (KeyError, binascii.Error):
            return None
        try:
            hospital = self._find_hospital(key)
        except HipfedError:
            log.exception("the registry cannot be asked")
            raise _RefusedError(503) from None  # hospitals try again
        return hospital if hospital is not None and _is_signed_by(key, timestamp, signature) else None

    async def _await_message(self, scope: Scope, receive: Receive, send: Send, exchange: _Exchange) -> None:
        """Ask the SuperLink until it has a message, the time is over, the hospital has gone or may not ask any more."""
        body = b"".join([piece async for piece in self._read_body(receive, exchange)])
        end, pause_s = time.monotonic() + self._hold_s, FIRST_LOOK_S
        gone = asyncio.ensure_future(receive())  # after the body there is nothing to come but the end
        try:
            while True:
                response = await self._request(scope, body, exchange)
                is_empty = response.is_success and response.headers.get("content-length") == "0"
                if not is_empty or self._is_ending() or time.monotonic() > end:
                    await self._hand_out(response, send, exchange)
                    return
                await response.aclose()
                await asyncio.wait([gone], timeout=pause_s)
                if gone.done():
                    return
                pause_s = min(2 * pause_s, LONGEST_LOOK_S)
                await self._recognise(dict(scope["headers"]))
        finally:
            gone.cancel()

    async def _forward(self, scope: Scope, body: AsyncIterator[bytes], send: Send, exchange: _Exchange) -> None:
        await self._pass_on(await self._request(scope, body, exchange), send, exchange)

    async def _request(self, scope: Scope, body: bytes | AsyncIterator[bytes], exchange: _Exchange) -> httpx.Response:
        """The SuperLink's answer, its body still to come."""
        request = self._client.build_request(
            "POST",
            self._base + exchange.path,
            headers=[(name, value) for name, value in scope["headers"] if name not in _HOP_HEADERS]
            + [(b"x-forwarded-for", exchange.client.encode())],
            content=body,
        )
        try:
            return await self._client.send(request, stream=True)
        except httpx.TimeoutException as error:
            raise _RefusedError(504) from error
        except httpx.ConnectError as error:
            raise _RefusedError(503) from error
        except httpx.HTTPError as error:
            raise _RefusedError(502) from error

    async def _hand_out(self, response: httpx.Response, send: Send, exchange: _Exchange) -> None:
        """Pass on what may be a question, whose head is small: what is in it follows by other requests."""
        body = b"".join([piece async for piece in response.aiter_raw()])
        await self._pass_on(response, send, exchange, body=body)

    async def _pass_on(
        self, response: httpx.Response, send: Send, exchange: _Exchange, *, body: bytes | None = None
    ) -> None:
        """Pass a response on: its body as it comes, or the one that was read."""
        try:
            exchange.status = response.status_code
            if response.is_success:
                self._seen(exchange.hospital, exchange.path, _kind_of(body or b""))
            headers = [
                (name.lower(), value) for name, value in response.headers.raw if name.lower() not in _HOP_HEADERS
            ]
            await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
            async for piece in response.aiter_raw() if body is None else _only(body):
                exchange.bytes_out += len(piece)
                await self._within_gap(send({"type": "http.response.body", "body": piece, "more_body": True}))
            await self._within_gap(send({"type": "http.response.body", "body": b""}))
        finally:
            await response.aclose()

    async def _read_body(self, receive: Receive, exchange: _Exchange) -> AsyncIterator[bytes]:
        more = True
        while more:
            try:
                message: Message = await self._within_gap(receive())
            except TimeoutError as error:
                raise _RefusedError(408) from error
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            exchange.bytes_in += len(message.get("body", b""))
            more = message.get("more_body", False)
            yield message.get("body", b"")

    async def _within_gap(self, step: Any) -> Any:
        async with asyncio.timeout(self._gap_s):
            return await step


async def _only(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


def _kind_of(body: bytes) -> str:
    """Kind of the question in a response to pull-messages; "" if there is none."""
    try:
        messages = PullMessagesResponse.FromString(body).messages_list
    except DecodeError:
        return ""
    return str(messages[0].metadata.message_type) if messages else ""


async def _send_status(send: Send, exchange: _Exchange) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    body = json.dumps({"hipfed": own_version(), "protocol": PROTOCOL_VERSION, "time": now}).encode()
    exchange.status, exchange.bytes_out = 200, len(body)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _single_headers(pairs: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by name; of two with one name the SuperLink might take the other, so that there must be none."""
    names = [name for name, _ in pairs]
    for name in (FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER, TIMESTAMP_HEADER, "content-length"):
        if names.count(name.encode()) > 1:
            raise _RefusedError(400)
    return dict(pairs)


def _is_signed_by(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        public_key = load_pem_public_key(key)
        if not isinstance(public_key, ec.EllipticCurvePublicKey):
            return False
        public_key.verify(signature, message, ec.ECDSA(SHA256()))
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
