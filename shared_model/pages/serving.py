"""A small HTTP server of private pages: its socket, its settings, the headers of every answer."""

import contextlib
import socket
from collections.abc import Callable, Mapping
from types import FrameType, MappingProxyType
from typing import Any

import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message

from shared_model.errors import SettingsError

LONGEST_HEAD = 16 * 1024
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "SAMEORIGIN",  # for browsers that do not know the policy's frame-ancestors
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    }
)
NOTHING_ALLOWED = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


def listen(port: int, *, address: str = "127.0.0.1") -> socket.socket:
    """A listening socket.

    Args:
        port: 0 for any that is free.
        address: of an interface, IPv4 or IPv6.

    Raises:
        SettingsError: the address is not of this machine, or the port is taken or not for this user.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"--port {port}: expected a port that is free at {address}, got: {error.strerror}. Choose another with "
            "--port."
        ) from error
    return listener


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._on_exit()


def serve_until_ctrl_c(
    app: ASGIApp, listener: socket.socket, *, on_exit: Callable[[], None] = lambda: None, **settings: Any
) -> None:
    """Serve until Ctrl-C or SIGTERM; what is being answered is finished first, a second Ctrl-C does not wait for it.

    Args:
        app: ASGI.
        listener: from `listen`.
        on_exit: called once the end is asked for: closes streams that would never end.
        settings: more of uvicorn's.
    """
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=2 * LONGEST_HEAD,
        timeout_keep_alive=10,
        **settings,
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn has ended and passes the signal on
        _Server(config, on_exit).run([listener])


def complete_headers(message: Message, *, policy: str = NOTHING_ALLOWED, more: Mapping[str, str] | None = None) -> None:
    """Add what an answer lacks to the start of it; a content security policy of its own stays.

    Args:
        message: of ASGI; only `http.response.start` is changed.
        policy: content security policy.
        more: further headers.
    """
    if message["type"] == "http.response.start":
        headers = MutableHeaders(scope=message)
        for name, value in {**HEADERS, "Content-Security-Policy": policy, **(more or {})}.items():
            headers.setdefault(name, value)


def comes_from_own_pages(headers: Headers, *, origin: str) -> bool:
    """True if neither Origin nor Sec-Fetch-Site names another site; a request without both comes from no page.

    Args:
        headers: of a request.
        origin: of the server, as in `http://127.0.0.1:8000`.
    """
    return headers.get("sec-fetch-site", "none") in {"none", "same-origin"} and headers.get("origin", origin) == origin
