"""The dashboard in a real browser. Screenshots go to the folder that HIPFED_SCREENSHOTS names, else to pytest's own."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from server.dashboard.app import Dashboard
from server.dashboard.guard import Access, name_hosts
from server.dashboard.reading import RunReader
from tests.browser.chromium import needs_chromium
from tests.server.report.run_folders import write, write_failed_run, write_run

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dashboard") / "runs"
    write_run(folder / "first", rounds=12)
    write_run(folder / "second", rounds=8, title="Another study")
    write_failed_run(folder / "lost", reason="round 1 (fusion): expected answers of 3 hospitals, got 1")
    write_run(folder / "live", rounds=3)
    for name in ("metrics.json", "explanations.json", "model.json"):
        (folder / "live" / name).unlink()
    write(folder / "live", "status.json", {"state": "running", "reason": ""})
    return folder


@pytest.fixture(scope="module")
def address(runs: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        reader = RunReader(runs.resolve(), locked=lambda: None)
        dashboard = Dashboard(reader, access=Access(name_hosts(["127.0.0.1"], port, is_tls=False)))
        server = uvicorn.Server(uvicorn.Config(dashboard.app, http="h11", ws="none", log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
        dashboard.watcher._is_closed = True
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture(params=[(1600, "light"), (360, "dark")], ids=["wide-light", "narrow-dark"])
def page(request: pytest.FixtureRequest, browser: Browser, address: str, complaints: list[str]) -> Iterator[Page]:
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, base_url=address)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: _note_foreign(asked.url, address, complaints))
    yield page
    context.close()


def _note_foreign(url: str, address: str, complaints: list[str]) -> None:
    if not url.startswith((address, "data:", "blob:")):
        complaints.append(f"asked {url}")


def check(page: Page, name: str, complaints: list[str], tmp_path: Path) -> None:
    """No complaint, no serious barrier, nothing wider than the screen; and a screenshot."""
    folder = Path(os.environ.get("HIPFED_SCREENSHOTS") or tmp_path)
    width = page.viewport_size["width"] if page.viewport_size else 0
    page.screenshot(path=folder / f"dashboard-{name}-{width}.png", full_page=True)
    found = Axe().run(page).response["violations"]
    assert [one["id"] for one in found if one["impact"] in {"serious", "critical"}] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert complaints == []


def test_list_is_sorted_and_filtered(page: Page, complaints: list[str], tmp_path: Path) -> None:
    page.goto("/")
    check(page, "list", complaints, tmp_path)
    page.click("button[data-sort=name]")
    names = page.locator("#runs tbody th").all_inner_texts()
    assert [name.strip() for name in names] == ["first", "live", "lost", "second"]
    page.fill("#filter", "another")
    assert page.locator("#runs tbody tr:visible").count() == 1
    page.fill("#filter", "")
    page.select_option("#state", "failed")
    assert page.locator("#runs tbody tr:visible").count() == 1


def test_comparison_has_figures_and_says_what_overlap_means(page: Page, complaints: list[str], tmp_path: Path) -> None:
    page.goto("/")
    page.check("input[value=first]")
    page.check("input[value=second]")
    page.click("#compare")
    page.wait_for_selector(".js-plotly-plot .main-svg")
    assert page.get_by_text("show no difference").is_visible()
    check(page, "compare", complaints, tmp_path)


def test_finished_run_holds_its_report(page: Page, complaints: list[str], tmp_path: Path) -> None:
    page.goto("/run/first")
    page.locator("iframe").scroll_into_view_if_needed()
    page.frame_locator("iframe").locator("h1").wait_for()
    page.locator("#curves figure").first.scroll_into_view_if_needed()
    page.wait_for_selector(".js-plotly-plot .main-svg")
    check(page, "run", complaints, tmp_path)


def test_live_page_changes_as_rounds_are_written(page: Page, runs: Path, complaints: list[str], tmp_path: Path) -> None:
    page.goto("/run/live")
    expect(page.locator("#live")).to_contain_text("Live")
    file = runs / "live" / "rounds.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    number = len(lines) + 20
    last = {**json.loads(lines[-1]), "round": number, "failed": {"north": "no answer within 900 s"}}
    fresh = file.with_suffix(".new")
    fresh.write_text("\n".join([*lines, json.dumps(last)]) + "\n", encoding="utf-8")
    fresh.replace(file)
    expect(page.locator("#first .tile .value").first).to_have_text(str(number))
    assert page.locator("#hospitals").get_by_text("no answer within 900 s").first.is_visible()
    check(page, "live", complaints, tmp_path)
