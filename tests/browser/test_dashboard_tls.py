"""The real command on an address that others reach: the provisioned certificate, a token, a session in a browser."""

import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, expect

from server.enrolment.coordinator_home import CoordinatorHome
from tests.browser.chromium import Picture, needs_chromium
from tests.browser.dashboards import check, opened
from tests.server.coordinator_home import make_home
from tests.server.report.run_folders import write_run
from tests.waiting import PATIENCE_S

COMMAND = Path(sys.executable).parent / "hipfed-server"


@dataclass(frozen=True)
class Served:
    """What the command said, and whom its certificate is by."""

    address: str
    token: str
    home: CoordinatorHome

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.home.ca)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("tls")
    write_run(folder / "runs" / "plain")
    home = make_home(folder / "coordinator")
    options = ["--home", str(home.folder), "--address", "0.0.0.0", "--port", "0"]  # noqa: S104 - TLS and a token
    command = [str(COMMAND), "dashboard", str(folder / "runs"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said, token = (process.stdout.readline().partition(": ")[2].split()[0] for _ in range(2))
        port = urlsplit(said).port
        found = Served(f"https://127.0.0.1:{port}", token, home)
        with httpx.Client(transport=httpx.HTTPTransport(verify=found.trust, retries=50)) as client:
            client.get(found.address, timeout=PATIENCE_S)
        yield found
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0


def test_certificate_is_the_provisioned_one_and_the_token_opens_the_pages(served: Served) -> None:
    assert urlsplit(served.address).scheme == "https"
    with httpx.Client(base_url=served.address, verify=served.trust) as client:
        refused = client.get("/")
        assert (refused.status_code, refused.headers["location"]) == (303, "/login")
        assert client.post("/login", data={"token": "x" * len(served.token)}).status_code == 403
        opened_session = client.post("/login", data={"token": served.token})
        assert opened_session.status_code == 303
        assert opened_session.headers["set-cookie"].startswith("__Host-hipfed-dashboard=")
        assert "Secure" in opened_session.headers["set-cookie"].split("; ")
        page = client.get("/run/plain")
        assert page.status_code == 200
        assert page.headers["strict-transport-security"].startswith("max-age=")


def test_nothing_is_said_in_the_clear_or_under_an_old_protocol(served: Served) -> None:
    port = urlsplit(served.address).port
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(served.home.ca)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError), socket.create_connection(("127.0.0.1", port)) as plain:
        old.wrap_socket(plain, server_hostname="127.0.0.1")


def test_oversized_header_is_refused_and_others_are_still_served(served: Served) -> None:
    with httpx.Client(base_url=served.address, verify=served.trust) as client:
        assert client.get("/", headers={"X-Long": "x" * 20_000}).status_code == 431
        assert client.get("/login").status_code == 200


@needs_chromium
def test_browser_logs_in_with_the_token_and_watches(served: Served, browser: Browser, picture: Picture) -> None:
    with opened(browser, served.address, (360, "light"), trust_all=True) as found:
        page = found.page
        page.goto("/run/plain")
        expect(page.locator("h1")).to_have_text("Log in")
        check(found, "login", picture)
        page.fill("input[name=token]", "not the token")
        page.click("button[type=submit]")
        expect(page.locator("[role=alert]")).to_be_visible()
        found.complaints[:] = [text for text in found.complaints if "status of 403" not in text]
        page.fill("input[name=token]", served.token)
        page.click("button[type=submit]")
        expect(page.locator("h1")).to_have_text("Runs")
        expect(page.locator("#live")).to_contain_text("Live")
        assert served.token not in page.url
        assert page.evaluate("document.cookie") == ""
        check(found, "list-tls", picture)
