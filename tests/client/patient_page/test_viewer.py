import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from client.patient_page.viewer.app import build_viewer
from client.patient_page.viewer.guard import COOKIE
from client.patient_page.viewer.roster import KEPT_PAGES, PatientList, References
from shared_model.errors import StudyError
from tests.client.finished_run import FinishedRun
from tests.client.patient_page.asgi_browser import AsgiBrowser
from tests.client.patient_page.explained_patients import HOSTILE
from tests.client.patient_page.parsed_page import ParsedPage

PORT = 8765
HERE = f"http://127.0.0.1:{PORT}"


def _roster(finished: FinishedRun, *, outcomes: bool = False) -> PatientList:
    return PatientList(finished.model(), finished.site(), references=References(3, 5), with_outcomes=outcomes)


@pytest.fixture
def roster(finished: FinishedRun) -> PatientList:
    return _roster(finished)


@pytest.fixture
def browser(roster: PatientList) -> AsgiBrowser:
    """One that was given the start address and has not opened it yet."""
    return _browser(roster)


def _browser(roster: PatientList) -> AsgiBrowser:
    return AsgiBrowser(build_viewer(roster, port=PORT), HERE)


@pytest.fixture
def started(browser: AsgiBrowser) -> AsgiBrowser:
    assert browser.get(browser.start).status_code == 200
    return browser


def test_start_address_leads_to_the_list(browser: AsgiBrowser) -> None:
    answer = browser.get(browser.start)

    assert answer.url.path == browser.home
    assert [one["href"] for one in ParsedPage(answer.text).of("a") if "patient/" in one["href"]] == [
        f"patient/{i}" for i in range(60)
    ]


def test_list_shows_each_patients_risk(started: AsgiBrowser, roster: PatientList) -> None:
    rows = ParsedPage(started.get(started.home).text).tables[""][1:]

    assert [row[:2] for row in rows] == [[row.patient_id, f"{100 * row.risk:.1f}%"] for row in roster.rows]
    assert {row[2] for row in rows} == {"training part", "validation part", "test part"}
    assert [row[3] for row in rows] == [", ".join(row.lacks) or "nothing" for row in roster.rows]
    assert "drugs, hip" in {row[3] for row in rows}


def test_risk_of_the_list_is_that_of_the_page(started: AsgiBrowser, roster: PatientList) -> None:
    page = ParsedPage(started.get(f"{started.home}patient/7").text)

    assert f"predicts a risk of {100 * roster.rows[7].risk:.1f}%" in page.text
    assert roster.rows[7].patient_id in page.text


def test_outcome_is_shown_only_where_it_was_asked_for(finished: FinishedRun, started: AsgiBrowser) -> None:
    other = _browser(_roster(finished, outcomes=True))

    hidden = ParsedPage(started.get(started.home).text).tables[""]
    shown = ParsedPage(other.get(other.start).text).tables[""]

    assert "outcome" not in hidden[0]
    assert shown[0][-1] == "outcome"
    died = finished.site().patients.outcome.astype(bool)
    assert [row[-1] == "yes" for row in shown[1:]] == died.tolist()


def test_nothing_is_shown_without_a_token(browser: AsgiBrowser, roster: PatientList) -> None:
    for path in ("", "patient/3", "start", "start?token=", "start?token=wrong"):
        answer = browser.get(browser.home + path)
        assert answer.status_code == 403
        assert not [row for row in roster.rows if row.patient_id in answer.text]
        assert COOKIE not in answer.headers.get("set-cookie", "")


def test_start_address_is_good_once(roster: PatientList) -> None:
    browser = _browser(roster)
    browser.get(browser.start)
    other = AsgiBrowser(browser.viewer, HERE)

    assert other.get(browser.start).status_code == 403
    assert browser.get(browser.start).status_code == 200  # the same browser may come again


def test_wrong_cookie_is_refused(browser: AsgiBrowser) -> None:
    assert browser.get(browser.home, headers={"cookie": f"{COOKIE}=wrong"}).status_code == 403


def test_cookie_of_the_right_value_needs_the_right_place(started: AsgiBrowser) -> None:
    cookie = {"cookie": f"{COOKIE}={started.cookies[COOKIE]}"}

    assert started.get("/", headers=cookie).status_code == 403
    assert started.get("/elsewhere/patient/3", headers=cookie).status_code == 403


def test_cookie_goes_to_no_other_path_site_or_script(browser: AsgiBrowser) -> None:
    answer = browser.get(browser.start, follow=False)

    cookie = answer.headers["set-cookie"]
    assert f"Path={browser.home};" in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert answer.status_code == 303


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1", f"localhost:{PORT}", "[::1]"]
)
def test_other_host_is_refused(started: AsgiBrowser, host: str) -> None:
    assert started.get(started.home, headers={"host": host}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
    ids=str,
)
def test_request_of_another_site_is_refused(started: AsgiBrowser, headers: dict[str, str]) -> None:
    assert started.get(started.home, headers=headers).status_code == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_only_reading_is_served(started: AsgiBrowser, method: str) -> None:
    assert started.request(method, started.home).status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "patient/..%2f..%2f..%2fetc%2fpasswd",
        "patient/../../../etc/passwd",
        "patient/%2e%2e/%2e%2e/patients.csv",
        "patient/-1",
        "patient/60",
        "patient/1e1",
        "patient/\u0663",
        "patient/" + "9" * 5000,
        "patient/east-004",
        "patients.csv",
        "docs",
        "openapi.json",
    ],
)
def test_what_is_no_patient_is_not_found(started: AsgiBrowser, path: str) -> None:
    answer = started.get(started.home + path)

    assert answer.status_code in {403, 404}  # 403 where the client itself leaves the place
    assert "root:x:" not in answer.text
    assert answer.headers["content-type"].startswith("text/html")


def test_every_answer_forbids_caches_frames_and_foreign_scripts(started: AsgiBrowser) -> None:
    for path in (started.home, f"{started.home}patient/3", f"{started.home}none", "/elsewhere"):
        headers = started.get(path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe-inline" not in re.findall(r"script-src [^;]*", policy)[0]


def test_policy_of_the_answer_is_that_of_the_page(started: AsgiBrowser) -> None:
    answer = started.get(started.home)

    inside = next(
        one["content"]
        for one in ParsedPage(answer.text).of("meta")
        if one.get("http-equiv") == "Content-Security-Policy"
    )
    assert answer.headers["content-security-policy"] == f"{inside}; frame-ancestors 'none'"


def _fail_with(error: Exception) -> Callable[[int, str], str]:
    def fail(_row: int, _home: str) -> str:
        raise error

    return fail


def test_patient_who_cannot_be_explained_gives_a_page_that_says_why(
    started: AsgiBrowser, roster: PatientList, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "_render", _fail_with(StudyError("features: expected <b>sums</b>")))

    answer = started.get(f"{started.home}patient/3")

    assert answer.status_code == 422
    assert "This patient cannot be explained. features: expected <b>sums</b>" in ParsedPage(answer.text).text
    monkeypatch.undo()
    assert started.get(f"{started.home}patient/3").status_code == 200


def test_fault_of_the_program_gives_a_page_and_the_viewer_goes_on(
    started: AsgiBrowser, roster: PatientList, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roster, "_render", _fail_with(RuntimeError("east-003 died")))

    answer = started.get(f"{started.home}patient/3")

    assert answer.status_code == 500
    assert "fault of the program (RuntimeError)" in answer.text
    assert started.get(started.home).status_code == 200


def test_pages_are_made_one_after_the_other(roster: PatientList, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most, made = 0, 0, []
    counter = threading.Lock()

    def render(row: int, home: str) -> str:
        nonlocal at_once, most
        with counter:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.02)
        with counter:
            at_once -= 1
            made.append(row)
        return f"{home}{row}"

    monkeypatch.setattr(roster, "_render", render)
    with ThreadPoolExecutor(4) as pool:
        pages = list(pool.map(lambda row: roster.page(row, home="/x/"), [0, 1, 2, 3, 0, 1]))

    assert most == 1
    assert pages == ["/x/0", "/x/1", "/x/2", "/x/3", "/x/0", "/x/1"]
    assert sorted(made) == [0, 1, 2, 3]


def test_only_the_last_pages_are_kept(roster: PatientList, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "_render", lambda row, home: f"{home}{row}")

    for row in range(KEPT_PAGES + 3):
        roster.page(row, home="/")

    assert list(roster._pages) == list(range(3, KEPT_PAGES + 3))


def test_hostile_patient_id_is_text(finished: FinishedRun) -> None:
    roster = _roster(finished)
    roster.rows = tuple(replace(row, patient_id=HOSTILE) for row in roster.rows[:2])
    client = _browser(roster)

    page = ParsedPage(client.get(client.start).text)

    assert page.text.count(HOSTILE) == 2
    assert not page.of("img")
    assert len(page.of("script")) == 4
