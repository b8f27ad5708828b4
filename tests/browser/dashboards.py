"""A dashboard in this process, and its pages in a browser."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Request

from server.dashboard.app import Dashboard
from server.dashboard.guard import Access, name_hosts
from server.dashboard.reading import RunReader
from tests.browser.chromium import Opened, Picture

Scheme = Literal["light", "dark"]
LOOKS: tuple[tuple[int, Scheme], ...] = ((1600, "light"), (360, "dark"))


@contextmanager
def served(runs: Path) -> Iterator[str]:
    """The address of a dashboard of these runs, to which a run is what its status says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        reader = RunReader(runs.resolve(), locked=lambda: None)
        dashboard = Dashboard(reader, access=Access(name_hosts(["127.0.0.1"], port, is_tls=False)))
        server = uvicorn.Server(uvicorn.Config(dashboard.app, http="h11", ws="none", log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.05)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            dashboard.watcher._is_closed = True
            server.should_exit = True
            thread.join()


@contextmanager
def opened(browser: Browser, address: str, look: tuple[int, Scheme], *, trust_all: bool = False) -> Iterator[Opened]:
    """A page whose requests are noted if they are for another address than this."""
    width, scheme = look
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,
        base_url=address,
        ignore_https_errors=trust_all,
    )
    found = Opened(context.new_page())

    def note(request: Request) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            found.requests.append(request.url)

    found.page.on("request", note)
    yield found
    context.close()


def check(found: Opened, name: str, picture: Picture, *, axe: bool = True) -> None:
    """No complaint, no request of another, no serious barrier, nothing wider than the screen; and a screenshot.

    Axe looks at the frames of a page, too: a page like others with a long report may do without.
    """
    page = found.page
    width = page.viewport_size["width"] if page.viewport_size else 0
    picture(page, f"dashboard-{name}-{width}", full_page=True)
    if axe:
        complaints = list(found.complaints)
        violations = Axe().run(page).response["violations"]
        found.complaints[:] = complaints  # axe itself speaks to frames that may not hear it
        serious = [one for one in violations if one["impact"] in {"serious", "critical"}]
        assert [(one["id"], one["nodes"][0]["html"]) for one in serious] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("window.harmed") is None
    assert found.complaints == []
    assert found.requests == []
