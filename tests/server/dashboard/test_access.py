"""Who may look, and what a request may ask."""

from collections.abc import Callable
from pathlib import Path

import pytest

from server.dashboard.access import ALL_TRIES, TRIES, LoginLimit, Sessions, read_token
from server.dashboard.guard import COOKIE, Access, name_hosts
from server.dashboard.serving import ListenAddress, serve
from shared_model.errors import KeyFileError, SettingsError
from tests.server.dashboard.asking import Client
from tests.server.dashboard.conftest import TLS_BASE

TOKEN = "a-token-that-is-long-enough"  # noqa: S105 - of a test
PAGES = ("/", "/run/plain", "/report/plain", "/compare?run=plain", "/events/", "/events/plain", "/nowhere")
Connect = Callable[..., Client]


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guarded(connect: Connect, clock: Clock) -> Client:
    hosts = name_hosts(["127.0.0.1"], 8780, is_tls=True)
    return connect(Access(hosts, is_tls=True, sessions=Sessions(TOKEN, clock=clock), limit=LoginLimit(clock=clock)))


def log_in(client: Client, token: str = TOKEN) -> int:
    return client.post("/login", data={"token": token}).status_code


@pytest.mark.parametrize("path", PAGES)
def test_page_tells_nothing_without_a_token(guarded: Client, path: str) -> None:
    answer = guarded.get(path)
    assert answer.status_code in {303, 401}
    assert "plain" not in answer.text
    assert answer.headers.get("location", "/login") == "/login"


def test_wrong_token_opens_no_session(guarded: Client) -> None:
    assert log_in(guarded, "a-token-that-is-long-enoug") == 403
    assert not guarded.cookies
    assert guarded.get("/").status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"Referer": f"{TLS_BASE}/?token={TOKEN}"},
        {"Authorization": f"Bearer {TOKEN}"},
        {"Cookie": f"{COOKIE}={TOKEN}"},
        {"X-Token": TOKEN},
    ],
)
def test_token_is_not_accepted_in_a_header(guarded: Client, headers: dict[str, str]) -> None:
    assert guarded.get("/", headers=headers).status_code == 303


def test_token_is_not_accepted_in_a_query(guarded: Client) -> None:
    assert guarded.get(f"/?token={TOKEN}").status_code == 303
    assert guarded.post(f"/login?token={TOKEN}").status_code == 403


def test_right_token_opens_a_session_that_no_script_and_no_other_site_gets(guarded: Client) -> None:
    answer = guarded.post("/login", data={"token": TOKEN})
    assert answer.status_code == 303
    assert answer.headers["set-cookie"].startswith("__Host-")
    assert {"HttpOnly", "SameSite=Strict", "Path=/", "Secure"} <= set(answer.headers["set-cookie"].split("; "))
    assert guarded.get("/run/plain").status_code == 200


def test_session_ends_after_its_time_however_it_is_used(guarded: Client, clock: Clock) -> None:
    log_in(guarded)
    clock.now = 8 * 3600 - 1
    assert guarded.get("/").status_code == 200
    clock.now = 8 * 3600 + 1
    assert guarded.get("/").status_code == 303


def test_login_waits_after_five_wrong_tokens_even_for_the_right_one(guarded: Client, clock: Clock) -> None:
    assert [log_in(guarded, "wrong") for _ in range(TRIES)] == [403] * TRIES
    assert log_in(guarded) == 429
    clock.now = 61
    assert log_in(guarded) == 303


def test_login_limit_counts_all_clients_together(clock: Clock) -> None:
    limit = LoginLimit(clock=clock)
    for i in range(ALL_TRIES):
        limit.note_wrong(f"client {i}")
    assert limit.wait_s("another") == 60


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:80", "evil.example:8780", ""])
def test_wrong_host_is_refused(connect: Connect, host: str) -> None:
    answer = connect().get("/", headers={"Host": host})
    assert answer.status_code == 421
    assert "plain" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ],
)
def test_request_of_another_site_is_refused(connect: Connect, headers: dict[str, str]) -> None:
    assert connect().get("/run/plain", headers=headers).status_code == 403


def test_another_site_may_link_to_a_page(connect: Connect) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert connect().get("/", headers=headers).status_code == 200


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}])
def test_login_from_another_site_is_refused(guarded: Client, headers: dict[str, str]) -> None:
    assert guarded.post("/login", data={"token": TOKEN}, headers=headers).status_code == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", PAGES)
def test_only_get_and_head_are_answered(connect: Connect, method: str, path: str) -> None:
    assert connect().request(method, path).status_code == 405


def test_oversized_requests_are_refused(connect: Connect, guarded: Client) -> None:
    assert connect().get("/", headers={"X-Long": "x" * 17_000}).status_code == 431
    assert connect().get("/" + "x" * 5000).status_code == 414
    assert connect().request("GET", "/", content=b"x").status_code == 413
    assert guarded.post("/login", data={"token": "x" * 5000}).status_code == 413
    assert guarded.post("/login", headers={"Transfer-Encoding": "chunked"}).status_code == 413


@pytest.mark.parametrize("path", ["/", "/run/plain", "/report/plain", "/nowhere"])
def test_answer_has_the_security_headers(connect: Connect, path: str) -> None:
    headers = connect().get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert "unsafe" not in scripts
    ancestors = "'self'" if path.startswith("/report") else "'none'"
    assert f"frame-ancestors {ancestors}" in policy


def test_report_runs_apart_from_the_dashboard(connect: Connect) -> None:
    policy = connect().get("/report/plain").headers["Content-Security-Policy"]
    assert "sandbox allow-scripts allow-downloads;" in policy
    assert "allow-same-origin" not in policy


def test_another_address_than_loopback_needs_a_certificate(runs: Path) -> None:
    with pytest.raises(SettingsError, match="by TLS only"):
        serve(runs, ListenAddress("0.0.0.0", 0), say=print)  # noqa: S104 - it is refused


def test_token_needs_a_certificate_on_loopback_too(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--token-file: expected --home"):
        serve(runs, ListenAddress("127.0.0.1", 0, token_file=tmp_path / "token"), say=print)


def test_token_file_must_be_private_and_long(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN, encoding="utf-8")
    file.chmod(0o644)
    with pytest.raises(KeyFileError, match="0600"):
        read_token(file)
    file.chmod(0o600)
    assert read_token(file) == TOKEN
    file.write_text("short", encoding="utf-8")
    with pytest.raises(SettingsError, match="at least 20"):
        read_token(file)
