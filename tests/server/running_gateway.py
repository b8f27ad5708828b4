"""A gateway on a real port before a SuperLink that is a few lines long."""

import json
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from server.deployment.gateway import Gateway
from server.deployment.gateway_process import server_config
from server.enrolment.coordinator_home import CoordinatorHome
from tests.waiting import PATIENCE_S


@dataclass
class FakeSuperLink:
    """Answers with what it got: the number of body bytes; `/v1/fleet/large` with as many bytes as the body says.

    Attributes:
        requests: path and headers of each.
        answer: in place of the number of bytes.
    """

    requests: list[tuple[str, dict[bytes, bytes]]] = field(default_factory=list)
    answer: bytes = b""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        self.requests.append((scope["raw_path"].decode(), dict(scope["headers"])))
        n_bytes, body, more = 0, b"", True
        while more:
            message = await receive()
            n_bytes += len(message.get("body", b""))
            body = message.get("body", b"")[:20]
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-of-flower", b"kept")]})
        if scope["path"] == "/v1/fleet/large":
            for _ in range(int(body) // 2**16):
                await send({"type": "http.response.body", "body": bytes(2**16), "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "http.response.body", "body": self.answer or str(n_bytes).encode()})


@contextmanager
def serving(config: uvicorn.Config) -> Iterator[uvicorn.Server]:
    """Serve in a thread."""
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.02)
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join()


def serve_superlink(home: CoordinatorHome, superlink: FakeSuperLink) -> uvicorn.Config:
    """The listener of a fake SuperLink."""
    return uvicorn.Config(
        superlink,
        host="127.0.0.1",
        port=home.settings.superlink_port,
        loop="asyncio",
        ws="none",
        ssl_certfile=str(home.tls / "server.crt"),
        ssl_keyfile=str(home.tls / "server.key"),
        log_config=None,
    )


def serve_gateway(home: CoordinatorHome, gateway: Gateway) -> uvicorn.Config:
    """The real listener of a gateway."""
    return server_config(gateway, home)


def signed_headers(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    """The headers of a SuperNode with this key."""
    timestamp = datetime.now(UTC).isoformat()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return {
        "flwr-public-key": b64encode(public).decode(),
        "flwr-timestamp": timestamp,
        "flwr-signature": b64encode(key.sign(timestamp.encode(), ec.ECDSA(SHA256()))).decode(),
    }


def speak(home: CoordinatorHome, request: bytes, *, timeout_s: float = PATIENCE_S) -> bytes:
    """Send bytes over TLS as they are, and return all that comes back until the other side closes."""
    context = ssl.create_default_context(cafile=str(home.ca))
    with (
        socket.create_connection(("127.0.0.1", home.settings.port), timeout=timeout_s) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def raw_request(target: str, headers: dict[str, str], *, method: str = "POST", body: bytes = b"x") -> bytes:
    """One HTTP request with its target exactly as given."""
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def status_of(answer: bytes) -> int:
    """Status of a response; 0 where there was none."""
    return int(answer.split(b" ", 2)[1]) if answer else 0


def read_body(answer: bytes) -> Any:
    """JSON of a response's body."""
    return json.loads(answer.partition(b"\r\n\r\n")[2])
