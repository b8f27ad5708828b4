"""A patient's page and the viewer in a real browser.

HIPFED_SCREENSHOTS names a folder for pictures, for review.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from client.patient_page.viewer.app import build_viewer
from client.patient_page.viewer.roster import PatientList, References
from shared_model.pages.serving import listen
from tests.browser.chromium import Opened, Picture, needs_chromium, texts_cut
from tests.client.finished_run import FinishedRun, finish_run
from tests.client.patient_page.explained_patients import (
    HOSTILE,
    LACKING,
    PATIENT,
    explain,
    render,
    with_hostile_names,
)

WIDTHS = (360, 1600)

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return finish_run(tmp_path_factory.mktemp("finished"))


@pytest.fixture(scope="module")
def pages(finished: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    content = explain(finished, PATIENT)
    made = {
        "plain": render(finished, content),
        "without-image": render(finished, explain(finished, LACKING), LACKING),
        "hostile": render(finished, with_hostile_names(content)),
    }
    folder = tmp_path_factory.mktemp("pages")
    for name, html in made.items():
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in made}


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Opened]]:
    contexts = []

    def open_page(address: str, *, width: int = 1600, scheme: str = "light") -> Opened:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light"
        )
        contexts.append(context)
        opened = Opened(context.new_page())

        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.goto(address)
        return opened

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def viewer(finished: FinishedRun) -> Iterator[str]:
    """The start address of a viewer that runs."""
    roster = PatientList(finished.model(), finished.site(), references=References(3, 5), with_outcomes=False)
    listener = listen(0)
    app = build_viewer(roster, port=listener.getsockname()[1])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield app.start_address
    server.should_exit = True
    thread.join()
    listener.close()


def _see_all(page: Page) -> None:
    """Every figure comes near the screen and is drawn."""
    page.locator("html[data-figures=ready]").wait_for()  # the page's policy lets no string be evaluated
    height = page.evaluate("document.documentElement.scrollHeight")
    width = page.viewport_size["width"] if page.viewport_size else 1600
    page.set_viewport_size({"width": width, "height": height})
    for figure in page.locator("[data-figure]").all():
        figure.locator("svg.main-svg").first.wait_for(state="attached")


def _serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in {"serious", "critical"}]


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1600, "light")])
@pytest.mark.parametrize("name", ["plain", "without-image", "hostile"])
def test_page_opens_offline_and_fits(
    visit: Callable[..., Opened], pages: dict[str, Path], picture: Picture, name: str, width: int, scheme: str
) -> None:
    opened = visit(pages[name].as_uri(), width=width, scheme=scheme)

    _see_all(opened.page)

    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    picture(opened.page, f"patient-{name}-{width}-{scheme}", full_page=True)


def test_long_names_go_on_in_a_second_line_where_there_is_little_room(
    visit: Callable[..., Opened], pages: dict[str, Path]
) -> None:
    opened = visit(pages["plain"].as_uri(), width=360)

    _see_all(opened.page)

    lines = opened.page.locator("[data-figure^=waterfall] .ytick text").first.locator("tspan").all_text_contents()
    assert lines == ["reference", "patients"]
    names = opened.page.locator("[data-figure^=waterfall] .ytick text").all_text_contents()
    assert not any("…" in name for name in names)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["plain", "without-image"])
def test_page_has_no_serious_accessibility_fault(
    visit: Callable[..., Opened], pages: dict[str, Path], name: str, scheme: str
) -> None:
    opened = visit(pages[name].as_uri(), scheme=scheme)
    _see_all(opened.page)

    assert _serious(opened.page) == []


def test_hostile_names_are_shown_as_text(visit: Callable[..., Opened], pages: dict[str, Path]) -> None:
    opened = visit(pages["hostile"].as_uri())
    _see_all(opened.page)

    assert HOSTILE in (opened.page.locator("h1").text_content() or "")
    assert opened.complaints == []
    assert opened.page.locator("img[src=x]").count() == 0


def test_heat_map_fades_with_the_keyboard_and_lies_on_the_radiograph(
    visit: Callable[..., Opened], pages: dict[str, Path]
) -> None:
    page = visit(pages["plain"].as_uri()).page
    slider, heat, picture = page.get_by_label("Strength of the heat map over hip"), page.locator(".heat"), ".picture"

    before = heat.evaluate("(image) => getComputedStyle(image).opacity")
    slider.focus()
    page.keyboard.press("End")
    full = heat.evaluate("(image) => getComputedStyle(image).opacity")
    page.keyboard.press("Home")
    gone = heat.evaluate("(image) => getComputedStyle(image).opacity")

    assert (before, full, gone) == ("0.6", "1", "0")
    assert slider.get_attribute("aria-valuetext") == "0%"
    assert heat.bounding_box() == page.locator(picture).bounding_box()


def test_no_number_of_the_first_screen_is_cut_at_any_width(
    visit: Callable[..., Opened], pages: dict[str, Path]
) -> None:
    assert texts_cut(visit(pages["plain"].as_uri()).page) == {}


@pytest.mark.parametrize("width", WIDTHS)
def test_list_sorts_and_filters(visit: Callable[..., Opened], viewer: str, picture: Picture, width: int) -> None:
    opened = visit(viewer, width=width)
    page = opened.page
    rows = page.locator("tbody tr:visible")

    page.get_by_role("button", name="predicted risk").click()
    ascending = [float(text.rstrip("%")) for text in page.locator("tbody td.number").all_inner_texts()]
    page.get_by_role("button", name="predicted risk").click()
    descending = [float(text.rstrip("%")) for text in page.locator("tbody td.number").all_inner_texts()]
    page.get_by_label("Part of the run").select_option("test")
    in_test = rows.count()
    page.get_by_label("Patient id holds").fill("EAST-00")

    assert len(ascending) == 60
    assert ascending == sorted(ascending)
    assert descending == sorted(descending, reverse=True)
    assert in_test == 12
    assert page.get_by_role("status").inner_text() == f"{rows.count()} of 60 patients shown"
    assert all(text.startswith("east-00") for text in page.locator("tbody a:visible").all_inner_texts())
    assert opened.complaints == []
    assert _serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    picture(page, f"viewer-{width}")


def test_list_leads_to_a_page_and_back(visit: Callable[..., Opened], viewer: str) -> None:
    opened = visit(viewer)
    page = opened.page

    page.get_by_role("link", name=PATIENT).click()
    _see_all(page)
    title, address = page.title(), page.url
    shown = page.locator("h1").inner_text()
    page.get_by_role("link", name="all patients").click()

    assert shown == f"Patient {PATIENT}"
    assert PATIENT not in title + address
    assert page.locator("tbody tr").count() == 60
    assert opened.complaints == []


def test_another_browser_is_shown_nothing(visit: Callable[..., Opened], viewer: str) -> None:
    mine = visit(viewer)

    other = visit(mine.page.url)

    assert other.page.locator("h1").inner_text() == "Not shown"
    assert "east-" not in other.page.content()
