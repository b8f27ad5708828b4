"""The routes: each reads, none writes."""

import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import FastAPI, Header, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse

from server.dashboard.guard import LOGIN, LONGEST_BODY, Access, DashboardGuard
from server.dashboard.pages import Pages, RenderedPage
from server.dashboard.reading import RunReader
from server.dashboard.reports import Reports
from server.dashboard.watching import Watcher
from shared_model.errors import HipfedError
from shared_model.pages.document import page_policy

# A report runs apart from the dashboard, as if of another site: it can neither read its pages nor ask for one.
_REPORT_POLICY = "sandbox allow-scripts allow-downloads; {policy}; frame-ancestors 'self'"
_SHOWN = ["GET", "HEAD"]

log = logging.getLogger("hipfed.dashboard")


class Dashboard:
    """The application and what it holds.

    Attributes:
        watcher: tells viewers what changed.
        app: for an ASGI server.

    Args:
        reader: of the runs.
        access: who may look.
        watcher: another than the usual one.
    """

    def __init__(self, reader: RunReader, *, access: Access, watcher: Watcher | None = None) -> None:
        self._reader, self._access = reader, access
        self._pages, self._reports = Pages(reader), Reports()
        self._report_policy = _REPORT_POLICY.format(policy=page_policy())
        self.watcher = watcher or Watcher(self._pages.read_parts)
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=self._live, redirect_slashes=False)
        app.add_api_route("/", self.show_list, methods=_SHOWN)
        app.add_api_route("/run/{name:path}", self.show_run, methods=_SHOWN)
        app.add_api_route("/report/{name:path}", self.show_report, methods=_SHOWN)
        app.add_api_route("/compare", self.compare, methods=_SHOWN)
        app.add_api_route("/events/{name:path}", self.tell_events, methods=["GET"])
        app.add_api_route(LOGIN, self.show_login, methods=_SHOWN)
        app.add_api_route(LOGIN, self.log_in, methods=["POST"])
        app.add_exception_handler(HTTPException, self._explain)
        app.add_exception_handler(Exception, self._apologise)
        self.app = DashboardGuard(app, access=access)

    @asynccontextmanager
    async def _live(self, _: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(self._pages.show_list)  # so that the first viewer does not wait for all files
        yield
        self.watcher.close()

    def show_list(self) -> Response:
        """All runs."""
        return _answer(self._pages.show_list())

    def show_run(self, name: str) -> Response:
        """A run."""
        page = self._pages.show_run(name)
        return _answer(page) if page else self._missing()

    def show_report(self, name: str) -> Response:
        """The report of a run, by itself or in the run's page."""
        place = self._reader.find(name)
        if place is None:
            return self._missing()
        try:
            report = self._reports.read(place)
        except HipfedError as error:
            page = self._pages.show_problem("problem.report", reason=str(error))
            return HTMLResponse(page.html, 500, {"Content-Security-Policy": _REPORT_POLICY.format(policy=page.policy)})
        return HTMLResponse(report, headers={"Content-Security-Policy": self._report_policy})

    def compare(self, run: Annotated[list[str] | None, Query()] = None) -> Response:
        """Runs side by side."""
        return _answer(self._pages.show_comparison(run or []))

    async def tell_events(self, request: Request, name: str, last_event_id: Annotated[str, Header()] = "") -> Response:
        """What changes in the list, or in a run's page, as it changes."""
        if name and await run_in_threadpool(self._reader.find, name) is None:
            return PlainTextResponse("No such run.\n", 404)
        until = self._access.session_end(request.headers)
        stream = self.watcher.listen(name, seen=last_event_id, until=until)
        return StreamingResponse(stream, media_type="text/event-stream")

    def show_login(self) -> Response:
        """The form for the token."""
        return _answer(self._pages.show_login()) if self._access.sessions else RedirectResponse("/", 303)

    async def log_in(self, request: Request) -> Response:
        """Exchange the token for a session."""
        if self._access.sessions is None:
            return RedirectResponse("/", 303)
        client = request.client.host if request.client else ""
        wait_s = math.ceil(self._access.limit.wait_s(client))
        if wait_s:
            return _answer(self._pages.show_login("login.wait", s=wait_s), 429, {"Retry-After": str(wait_s)})
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > LONGEST_BODY:
                return PlainTextResponse("Body too large.\n", 413)
        tokens = parse_qs(body.decode("utf-8", errors="replace"), max_num_fields=4).get("token", [""])
        session = self._access.sessions.open(tokens[0])
        if session is None:
            self._access.limit.note_wrong(client)
            log.warning("a wrong token from %s", client)
            return _answer(self._pages.show_login("login.wrong"), 403)
        return RedirectResponse("/", 303, {"Set-Cookie": self._access.describe_cookie(session)})

    async def _explain(self, _: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        return _answer(self._pages.show_problem("problem.missing"), status)

    async def _apologise(self, _: Request, __: Exception) -> Response:
        return _answer(self._pages.show_problem("problem.failed"), 500)

    def _missing(self) -> Response:
        return _answer(self._pages.show_problem("problem.missing"), 404)


def _answer(page: RenderedPage, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    policy = f"{page.policy}; frame-ancestors 'none'"
    return HTMLResponse(page.html, status, {"Content-Security-Policy": policy, **(headers or {})})
