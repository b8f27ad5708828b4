"""Access to the viewer: only the browser of the user who started it, from the viewer's own pages.

| against | by |
|---|---|
| other machines | a socket on 127.0.0.1 only |
| other users of this machine | a random start address, good once, exchanged for a cookie |
| their servers on other ports, to which a browser sends a host's cookies | a random path that the cookie is bound to |
| a name of another site that resolves to 127.0.0.1 | the Host header must be the viewer's own |
| other sites and ports in the same browser | SameSite=Strict, Sec-Fetch-Site, Origin |
| frames, caches, referrers, sniffing | headers of every answer |
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared_model.pages.serving import comes_from_own_pages, complete_headers

COOKIE = "hipfed-viewer"
START = "start"
_BYTES = 24


def _draw() -> str:
    return secrets.token_urlsafe(_BYTES)


@dataclass(frozen=True)
class Secrets:
    """What only the user's browser knows.

    Attributes:
        place: first part of every path.
        token: of the start address; good once.
        session: value of the cookie.
    """

    place: str = field(default_factory=_draw, repr=False)
    token: str = field(default_factory=_draw, repr=False)
    session: str = field(default_factory=_draw, repr=False)


class ViewerGuard:
    """Lets through to the app what the user's browser asks, and refuses everything else.

    Args:
        app: that answers.
        port: of the socket on 127.0.0.1.
        known: what only the user's browser knows.
        refuse: makes the other answers, from why (forbidden, other_origin, not_found) and HTTP's status.
        policy: content security policy of every answer.
    """

    def __init__(
        self, app: ASGIApp, *, port: int, known: Secrets, refuse: Callable[[str, int], Response], policy: str
    ) -> None:
        self._app, self._known, self._refuse = app, known, refuse
        self._host = f"127.0.0.1:{port}"
        self._origin, self._policy = f"http://{self._host}", policy
        self._token_is_used = False

    @property
    def start_address(self) -> str:
        """Where the user begins; good once."""
        return f"{self._origin}/{self._known.place}/{START}?token={self._known.token}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI); only HTTP is served."""
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            complete_headers(message, policy=self._policy, more={"X-Frame-Options": "DENY"})
            await send(message)

        answer = self._answer_at_the_door(Request(scope)) or self._app
        await answer(scope, receive, send_guarded)

    def _answer_at_the_door(self, request: Request) -> Response | None:
        """None for who may pass."""
        if not self._is_from_here(request):
            return self._refuse("other_origin", 403)
        if request.method != "GET":
            return self._refuse("not_found", 405)
        _, place, rest = [*request.url.path.split("/", 2), "", ""][:3]
        if not _is_same(place, self._known.place):
            return self._refuse("forbidden", 403)
        has_cookie = _is_same(request.cookies.get(COOKIE, ""), self._known.session)
        if rest == START:
            return self._begin(request.query_params.get("token", ""), has_cookie=has_cookie)
        return None if has_cookie else self._refuse("forbidden", 403)

    def _is_from_here(self, request: Request) -> bool:
        """True if the browser asks at our own address, and neither for another site nor for another port."""
        is_own_host = request.headers.getlist("host") == [self._host]
        return is_own_host and comes_from_own_pages(request.headers, origin=self._origin)

    def _begin(self, token: str, *, has_cookie: bool) -> Response:
        if not has_cookie:
            if self._token_is_used or not _is_same(token, self._known.token):
                return self._refuse("forbidden", 403)
            self._token_is_used = True
        home = f"/{self._known.place}/"
        response = RedirectResponse(home, status_code=303)
        response.set_cookie(COOKIE, self._known.session, path=home, httponly=True, samesite="strict")
        return response


def _is_same(given: str, known: str) -> bool:
    return secrets.compare_digest(given.encode(), known.encode())
