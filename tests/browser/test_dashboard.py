"""The dashboard in a real browser. HIPFED_SCREENSHOTS names a folder for pictures."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.chromium import Opened, Picture, needs_chromium, texts_cut
from tests.browser.dashboards import LOOKS, check, opened, served
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
    with served(runs) as address:
        yield address


@pytest.fixture(params=LOOKS, ids=["wide-light", "narrow-dark"])
def found(request: pytest.FixtureRequest, browser: Browser, address: str) -> Iterator[Opened]:
    with opened(browser, address, request.param) as found:
        yield found


def test_list_is_sorted_and_filtered(found: Opened, picture: Picture) -> None:
    page = found.page
    page.goto("/")
    check(found, "list", picture)
    page.click("button[data-sort=name]")
    names = page.locator("#runs tbody th").all_inner_texts()
    assert [name.strip() for name in names] == ["first", "live", "lost", "second"]
    page.fill("#filter", "another")
    assert page.locator("#runs tbody tr:visible").count() == 1
    page.fill("#filter", "")
    page.select_option("#state", "failed")
    assert page.locator("#runs tbody tr:visible").count() == 1


def test_comparison_has_figures_and_says_what_overlap_means(found: Opened, picture: Picture) -> None:
    page = found.page
    page.goto("/")
    page.check("input[value=first]")
    page.check("input[value=second]")
    page.click("#compare")
    page.wait_for_selector(".js-plotly-plot .main-svg")
    assert page.get_by_text("Overlapping intervals do not show that runs are equal").is_visible()
    check(found, "compare", picture)


def test_finished_run_holds_its_report(found: Opened, picture: Picture) -> None:
    page = found.page
    page.goto("/run/first")
    page.locator("iframe").scroll_into_view_if_needed()
    page.frame_locator("iframe").locator("h1").wait_for()
    picture(page, "dashboard-report-inside")  # a picture of the whole page leaves frames out
    page.locator("#curves figure").first.scroll_into_view_if_needed()
    page.wait_for_selector(".js-plotly-plot .main-svg")
    check(found, "run", picture)


@pytest.mark.parametrize("run", ["first", "lost", "live"])
def test_no_number_of_the_first_screen_is_cut_at_any_width(browser: Browser, address: str, run: str) -> None:
    with opened(browser, address, LOOKS[0]) as found:
        found.page.goto(f"/run/{run}")
        assert texts_cut(found.page) == {}


def test_live_page_changes_as_rounds_are_written(found: Opened, runs: Path, picture: Picture) -> None:
    page = found.page
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
    check(found, "live", picture)
