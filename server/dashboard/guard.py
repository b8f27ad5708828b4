"""The rules that hold for every request before any route sees it, and for every answer.

| rule | against |
|---|---|
| the Host header names this dashboard | DNS rebinding: another site's name that leads here |
| only GET and HEAD, and POST to the login | anything that could change something |
| a request of another site only to open a page | being read, embedded or set to work by other sites |
| a session, where there is a token | everybody else |
| small requests | exhaustion |
| security headers on every answer | scripts, frames, referrers and caches that could take something along |
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.dashboard.access import LoginLimit, Sessions
from shared_model.pages.serving import LONGEST_HEAD, comes_from_own_pages, complete_headers

LOGIN = "/login"
EVENTS = "/events/"
COOKIE = "__Host-hipfed-dashboard"  # no other host, and nobody without TLS, can set it or is sent it
LONGEST_TARGET = 4096
LONGEST_BODY = 4096
_TLS_ONLY = {"Strict-Transport-Security": "max-age=31536000"}


@dataclass
class Access:
    """Who may reach the dashboard, and how.

    Attributes:
        hosts: values of the Host header that it answers to.
        is_tls: whether it speaks TLS.
        sessions: of those who know the token, by TLS only; None where no token is needed.
        limit: of wrong tokens.
    """

    hosts: frozenset[str]
    is_tls: bool = False
    sessions: Sessions | None = None
    limit: LoginLimit = field(default_factory=LoginLimit)

    def describe_cookie(self, session: str) -> str:
        """The Set-Cookie header of a session."""
        age = int(self.sessions.lasts_s) if self.sessions else 0
        return f"{COOKIE}={session}; Max-Age={age}; Path=/; HttpOnly; SameSite=Strict; Secure"

    def session_end(self, headers: Headers) -> float | None:
        """When the session of a request ends, on the monotonic clock; None if it has none."""
        if self.sessions is None:
            return None
        cookie = SimpleCookie()
        try:
            for line in headers.getlist("cookie"):
                cookie.load(line)
        except CookieError:
            return None
        return self.sessions.end_of(cookie[COOKIE].value) if COOKIE in cookie else None


class DashboardGuard:
    """ASGI middleware around the whole application.

    Args:
        app: what is guarded.
        access: who may reach it.
    """

    def __init__(self, app: ASGIApp, *, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or let the application answer it; the headers are added either way."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"the dashboard: expected http, got {scope['type']}")

        async def send_guarded(message: Message) -> None:
            complete_headers(message, more=_TLS_ONLY if self._access.is_tls else None)
            await send(message)

        refusal = self._refuse(scope)
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refuse(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.getlist("host")
        if len(host) != 1 or host[0].lower() not in self._access.hosts:
            return PlainTextResponse("Unknown host.\n", 421)
        refusal = _refuse_form(scope, headers)
        if refusal is None and _is_foreign(scope, headers):
            refusal = PlainTextResponse("Not for other sites.\n", 403)
        return refusal or self._refuse_stranger(scope, headers)

    def _refuse_stranger(self, scope: Scope, headers: Headers) -> Response | None:
        """Ask for a session."""
        needs_session = self._access.sessions is not None and scope["path"] != LOGIN
        if not needs_session or self._access.session_end(headers) is not None:
            return None
        if scope["path"].startswith(EVENTS):
            return PlainTextResponse("Log in first.\n", 401)
        return RedirectResponse(LOGIN, 303)


def _refuse_form(scope: Scope, headers: Headers) -> Response | None:
    """Refuse what is too large, or asks for more than to be shown something."""
    if sum(len(name) + len(value) for name, value in scope["headers"]) > LONGEST_HEAD:
        return PlainTextResponse("Headers too large.\n", 431)
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > LONGEST_TARGET:
        return PlainTextResponse("Address too long.\n", 414)
    if scope["method"] == "POST" and scope["path"] == LOGIN:
        return _refuse_body(headers, most=LONGEST_BODY)
    if scope["method"] not in {"GET", "HEAD"}:
        return PlainTextResponse("Only GET and HEAD.\n", 405, {"Allow": "GET, HEAD"})
    return _refuse_body(headers, most=0)


def _refuse_body(headers: Headers, *, most: int) -> Response | None:
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length.isdecimal() or int(length) > most:
        return PlainTextResponse("Body too large.\n", 413)
    return None


def _is_foreign(scope: Scope, headers: Headers) -> bool:
    """True if another site makes the request. Opening one of our pages from elsewhere is no harm; the rest is."""
    site, own = headers.get("sec-fetch-site"), f"{scope['scheme']}://{headers['host']}"
    if scope["method"] == "POST" and site is not None:
        return site not in {"same-origin", "none"}  # a browser's own form sends the origin "null" under no-referrer
    opens_a_page = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
    if scope["method"] != "POST" and site not in {None, "same-origin", "none"}:
        return not opens_a_page
    return not comes_from_own_pages(headers, origin=own)


def name_hosts(names: Sequence[str], port: int, *, is_tls: bool) -> frozenset[str]:
    """Values of a Host header that mean these names at this port."""
    written = [f"[{name}]" if ":" in name else name.lower() for name in names]
    with_port = {f"{name}:{port}" for name in written}
    return frozenset(with_port | (set(written) if port == (443 if is_tls else 80) else set()))
