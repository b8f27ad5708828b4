"""Names that try to be markup, scripts or pages of their own, a hundred hospitals, and a run that failed at once."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from server.run_folder.folder import RunFolder
from shared_model.pages.escaping import isolated
from tests.browser.chromium import Opened, Picture, needs_chromium
from tests.browser.dashboards import LOOKS, Scheme, check, opened, served
from tests.server.report.run_folders import (
    HOSTILE,
    training,
    write,
    write_failed_run,
    write_hostile_run,
    write_run,
)

pytestmark = needs_chromium

NARROW: tuple[int, Scheme] = (360, "light")
NAMES = [name.replace("/", "|") for name in HOSTILE]  # no folder has a slash in its name
HUNDRED = [f"hospital {number:03}" for number in range(100 - len(HOSTILE))] + list(HOSTILE)
ROUNDS = 3
Visit = Callable[..., AbstractContextManager[Opened]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "runs"
    for name in NAMES:
        write_hostile_run(folder / name)
    write_run(folder / "hundred", hospitals=HUNDRED)
    write_failed_run(folder / "failed", reason=f"round 1 (fusion): {HOSTILE[1]}", hospitals=HOSTILE)
    write(write_run(folder / "broken"), "metrics.json", {"test": {"pooled": HOSTILE[0]}})
    live = write_hostile_run(folder / "live")
    for name in ("metrics.json", "explanations.json", "model.json"):
        (live / name).unlink()
    write(live, "status.json", {"state": "running", "reason": ""})
    return folder


@pytest.fixture(scope="module")
def address(runs: Path) -> Iterator[str]:
    with served(runs) as address:
        yield address


@pytest.fixture
def visit(browser: Browser, address: str) -> Visit:
    return lambda look=NARROW: opened(browser, address, look)


def test_hostile_names_are_text_in_the_list(visit: Visit, picture: Picture) -> None:
    with visit() as found:
        found.page.goto("/")
        check(found, "hostile-list", picture)
        shown = {name.strip() for name in found.page.locator("#runs tbody th").all_inner_texts()}
        assert {*NAMES, "hundred", "failed", "broken", "live"} == shown
        found.page.fill("#filter", NAMES[1])
        assert found.page.locator("#runs tbody tr:visible").count() == 1
        found.page.locator("#runs tbody tr:visible a").click()
        expect(found.page.locator("h1")).to_have_text(NAMES[1])


@pytest.mark.parametrize("look", LOOKS)
def test_hostile_names_are_text_in_a_run_and_its_report(
    visit: Visit, picture: Picture, look: tuple[int, Scheme]
) -> None:
    with visit(look) as found:
        page = found.page
        page.goto("/")
        page.get_by_role("link", name=NAMES[0]).click()
        page.locator("iframe").scroll_into_view_if_needed()
        page.frame_locator("iframe").locator("h1").wait_for()
        page.locator("#curves figure").first.scroll_into_view_if_needed()
        page.wait_for_selector(".js-plotly-plot .main-svg")
        check(found, "hostile-run", picture)
        assert [frame.evaluate("window.harmed") for frame in page.frames] == [None, None]


def test_hostile_names_are_text_in_a_comparison(visit: Visit, picture: Picture) -> None:
    with visit() as found:
        page = found.page
        page.goto("/")
        for name in NAMES[:6]:
            page.get_by_label(f"Choose {isolated(name)}", exact=True).check()
        page.click("#compare")
        page.wait_for_selector(".js-plotly-plot .main-svg")
        check(found, "hostile-compare", picture)
        headings = page.locator("#metrics .table-part thead th").last
        assert headings.inner_text().strip() in NAMES


def test_live_page_of_hostile_names_changes_without_being_loaded_anew(
    visit: Visit, runs: Path, picture: Picture
) -> None:
    with visit() as found:
        page = found.page
        page.goto("/run/live")
        curve = page.locator("[data-figure=curve-val-loss]")
        curve.scroll_into_view_if_needed()
        page.wait_for_selector("[data-figure=curve-val-loss] .main-svg")
        page.evaluate("window.isTheSame = true")
        lines = training(HOSTILE, ["static"], ROUNDS + 4)
        lines[-1]["failed"] = {HOSTILE[0]: HOSTILE[1]}
        RunFolder(runs / "live").write_rounds(lines)
        expect(page.locator("#first .tile .value").first).to_have_text(str(ROUNDS + 4))
        expect(curve).to_have_attribute("aria-label", re.compile("the last is 0.265"))
        expect(page.locator("#hospitals")).to_contain_text(HOSTILE[1])
        points = page.evaluate("document.querySelector('[data-figure=curve-val-loss]').data.at(-1).x")
        assert max(points) == ROUNDS + 3  # a validation is of the model before its round
        assert page.evaluate("window.isTheSame") is True
        check(found, "hostile-live", picture)


def test_run_of_a_hundred_hospitals_fits_a_narrow_screen(visit: Visit, picture: Picture) -> None:
    with visit() as found:
        page = found.page
        page.goto("/run/hundred")
        assert page.locator("#hospitals tbody tr").count() == 100
        page.locator("iframe").scroll_into_view_if_needed()
        page.frame_locator("iframe").locator("h1").wait_for()
        check(found, "hundred", picture, axe=False)


def test_run_that_failed_in_its_first_round_tells_why(visit: Visit, picture: Picture) -> None:
    with visit() as found:
        page = found.page
        page.goto("/run/failed")
        assert page.locator("#first").get_by_text(HOSTILE[1]).is_visible()
        assert page.locator("#hospitals tbody tr").count() == len(HOSTILE)
        assert page.locator("#hospitals").get_by_text("no answer within 900 s").first.is_visible()
        expect(page.locator("[data-figure=curve-val-loss]")).to_have_attribute("aria-label", "No round yet.")
        check(found, "failed", picture)


def test_report_that_cannot_be_made_says_so_in_the_run_s_page(visit: Visit, picture: Picture) -> None:
    with visit() as found:
        page = found.page
        page.goto("/run/broken")
        page.locator("iframe").scroll_into_view_if_needed()
        report = page.frame_locator("iframe")
        expect(report.locator("h1")).to_have_text("No report")
        expect(report.locator("p").filter(has_text="cannot be shown")).to_be_visible()
        found.complaints[:] = [text for text in found.complaints if "status of 500" not in text]
        check(found, "broken", picture, axe=False)
