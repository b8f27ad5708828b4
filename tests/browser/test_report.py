"""The report in a real browser: nothing is asked of a network, nothing harmful runs, and all can be read and used.

HIPFED_SCREENSHOTS names a folder for pictures, for review.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from server.report.writing import write_report
from tests.browser.chromium import Opened, Picture, needs_chromium, texts_cut
from tests.server.report.run_folders import (
    HOSTILE,
    write_failed_run,
    write_hostile_run,
    write_run,
    write_suppressed_run,
)

WIDTHS = (360, 1600)

# The entry may be written after the page has loaded.
FIRST_PAINT = """new Promise((tell) => new PerformanceObserver((list) => {
    const paint = list.getEntriesByName("first-contentful-paint")[0];
    if (paint) tell(paint.startTime);
}).observe({ type: "paint", buffered: true }))"""
NOTE_WHEN_READY = """new MutationObserver(() => { window.figuresReady ??= performance.now(); })
    .observe(document, { attributeFilter: ["data-figures"], subtree: true })"""

pytestmark = needs_chromium

# What a cell holds, and what of it is saved for a spreadsheet.
SAVED_CELLS = {
    "+0.3337": "+0.3337",
    "+1.2e-05": "+1.2e-05",
    "-0.3337": "-0.3337",
    "+12%": "+12%",
    "+1+1": "'+1+1",
    "+A1": "'+A1",
    "=1+1": "'=1+1",
    "@SUM(A1)": "'@SUM(A1)",
}

RUNS: dict[str, Callable[[Path], Path]] = {
    "plain": lambda path: write_run(path, modalities=["static", "vitals", "medications", "hip", "chest"], features=2),
    "large": lambda path: write_run(
        path,
        hospitals=[f"hospital {i:02}" for i in range(20)],
        modalities=["static", "vitals", "medications", "hip", "chest"],
        features=40,
        rounds=20,
    ),
    "suppressed": write_suppressed_run,
    "failed": lambda path: write_failed_run(path, reason="round 1 (fusion): expected answers of 3 hospitals, got 1"),
    "one-hospital": lambda path: write_run(path, hospitals=["only"]),
    "no-images": lambda path: write_run(path, modalities=["static"]),
    "hundred-hospitals": lambda path: write_run(path, hospitals=[f"hospital {i:03}" for i in range(100)]),
    "hostile": write_hostile_run,
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    return {name: write_report(make(folder / name)) for name, make in RUNS.items()}


@pytest.fixture
def visit(browser: Browser, reports: dict[str, Path]) -> Iterator[Callable[..., Opened]]:
    contexts = []

    def open_report(name: str, *, width: int = 1600, scheme: str = "light") -> Opened:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
            accept_downloads=True,
        )
        contexts.append(context)
        opened = Opened(context.new_page())
        page = opened.page
        page.add_init_script(NOTE_WHEN_READY)

        def decide(route: Route) -> None:
            if route.request.url.startswith(("file:", "data:", "blob:")):
                route.continue_()
            else:
                opened.requests.append(route.request.url)
                route.abort()

        page.route("**/*", decide)
        page.goto(reports[name].as_uri())
        return opened

    yield open_report
    for context in contexts:
        context.close()


def _wait_for_figures(page: Page) -> None:
    if page.locator("[data-figure]").count():
        page.locator("html[data-figures=ready]").wait_for(state="attached")  # the policy lets no string be evaluated


def _open_table(page: Page, name: str) -> None:
    """By keyboard: a click may miss where figures above still move the page."""
    _wait_for_figures(page)
    page.locator(f"#figure-{name} summary").press("Enter")


def _scroll_through(page: Page) -> None:
    """To each figure that is not folded away, until it is drawn; on a busy machine that takes a while."""
    _wait_for_figures(page)
    page.evaluate(
        """async () => {
            const open = (holder) => !holder.closest("details:not([open])");
            for (const holder of [...document.querySelectorAll("[data-figure]")].filter(open)) {
                holder.scrollIntoView();
                while (!holder.querySelector("svg.main-svg")) {
                    await new Promise((done) => setTimeout(done, 20));
                }
            }
            scrollTo(0, 0);
        }"""
    )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", [name for name in RUNS if name != "large"])
def test_page_is_whole_asks_nothing_and_fits_its_width(
    visit: Callable[..., Opened], picture: Picture, name: str, width: int
) -> None:
    opened = visit(name, width=width)
    _scroll_through(opened.page)
    page = opened.page
    picture(page, f"{name}-{width}")

    assert opened.complaints == []
    assert opened.requests == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.evaluate("window.harmed") is None
    open_figures = page.locator("[data-figure]:visible")
    drawn = page.locator("[data-figure]:visible svg.main-svg >> nth=0")
    assert (
        page.evaluate(
            """() => [...document.querySelectorAll('[data-figure]')]
            .filter((holder) => !holder.closest('details:not([open])') && !holder.querySelector('svg.main-svg'))
            .map((holder) => holder.dataset.figure)"""
        )
        == []
    )
    assert bool(open_figures.count()) == bool(drawn.count())
    assert page.locator("text=not a medical device").first.is_visible()


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1600, "dark")])
@pytest.mark.parametrize("name", ["plain", "suppressed", "failed", "hostile"])
def test_axe_finds_nothing_serious(
    visit: Callable[..., Opened], picture: Picture, name: str, width: int, scheme: str
) -> None:
    page = visit(name, width=width, scheme=scheme).page
    _scroll_through(page)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    picture(page, f"{name}-{width}-{scheme}-open")

    found = Axe().run(page).response["violations"]

    serious = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in {"serious", "critical"}]
    assert serious == []


def test_first_screen_is_painted_and_readable_before_plotly_runs(visit: Callable[..., Opened]) -> None:
    page = visit("large").page

    paint = page.evaluate(FIRST_PAINT)
    _wait_for_figures(page)

    assert paint < page.evaluate("window.figuresReady")
    assert page.locator(".share-row").count() == 5
    text = page.locator(".first").inner_text()
    for part in ("Death after hip fracture", "400", "40", "0.78", "95% CI 0.70 to 0.84", "Read with care"):
        assert part in text


@pytest.mark.parametrize("name", ["plain", "suppressed", "failed", "hostile"])
def test_no_number_of_the_first_screen_is_cut_at_any_width(visit: Callable[..., Opened], name: str) -> None:
    assert texts_cut(visit(name).page) == {}


def test_page_without_scripts_still_tells_every_number(browser: Browser, reports: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(reports["plain"].as_uri())

    assert page.locator(".waiting").first.is_visible()
    assert not page.locator("button").first.is_visible()
    page.locator("#figure-shares summary").click()
    assert page.locator("#figure-shares table").is_visible()
    context.close()


def test_details_open_by_keyboard_and_show_the_numbers(visit: Callable[..., Opened]) -> None:
    page = visit("plain").page
    summary = page.locator("#figure-shares summary")

    summary.focus()
    page.keyboard.press("Enter")

    assert page.locator("#figure-shares table").is_visible()
    assert page.locator("#figure-shares tbody tr").count() == 5


def test_first_tab_skips_to_the_content(visit: Callable[..., Opened]) -> None:
    page = visit("plain").page

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")

    assert page.evaluate("document.activeElement.id") == "content"


def test_figure_behind_a_folded_part_is_drawn_when_it_opens(visit: Callable[..., Opened]) -> None:
    page = visit("plain").page
    _wait_for_figures(page)
    part = page.locator("#features details.folded").first

    # By keyboard: a click may miss where figures above still move the page.
    part.locator("> summary").press("Enter")
    part.locator("details.folded > summary").first.press("Enter")

    expect(part.locator("[data-figure] svg.main-svg").first).to_be_visible()
    assert page.locator("html[data-figures=ready]").count() == 1


def test_page_does_not_move_when_its_figures_are_drawn(visit: Callable[..., Opened]) -> None:
    page = visit("plain").page
    _wait_for_figures(page)
    heights = "[...document.querySelectorAll('[data-figure]')].map((figure) => figure.offsetHeight)"
    before = page.evaluate(f"() => {heights}")

    _scroll_through(page)

    assert page.evaluate(f"() => {heights}") == before


@pytest.mark.parametrize("format_", ["png", "svg"])
def test_figure_is_saved_as_a_picture(visit: Callable[..., Opened], tmp_path: Path, format_: str) -> None:
    opened = visit("plain")
    _wait_for_figures(opened.page)

    with opened.page.expect_download() as download:
        opened.page.locator(f"#figure-shares button[data-save={format_}]").click()

    assert download.value.suggested_filename == f"shares.{format_}"
    download.value.save_as(tmp_path / "picture")
    head = (tmp_path / "picture").read_bytes()[:200]
    assert head.startswith(b"\x89PNG") if format_ == "png" else b"<svg" in head
    assert opened.complaints == []


def test_table_is_saved_as_csv_with_its_numbers(visit: Callable[..., Opened], tmp_path: Path) -> None:
    page = visit("plain").page
    _open_table(page, "roc")

    with page.expect_download() as download:
        page.locator("#figure-roc button[data-save=csv]").click()

    download.value.save_as(tmp_path / "roc.csv")
    assert (tmp_path / "roc.csv").read_text(encoding="utf-8-sig").splitlines() == [
        "false positive rate,true positive rate,threshold risk",
        "0,0,1",
        "0.2,0.6,0.1",
        "1,1,0.01",
    ]


def test_csv_keeps_numbers_with_a_sign_and_guards_formulas(visit: Callable[..., Opened], tmp_path: Path) -> None:
    page = visit("plain").page
    _open_table(page, "roc")
    for cell, saved in SAVED_CELLS.items():
        page.locator("#figure-roc tbody td").first.evaluate("(place, text) => { place.textContent = text; }", cell)

        with page.expect_download() as download:
            page.locator("#figure-roc button[data-save=csv]").click()

        download.value.save_as(tmp_path / "roc.csv")
        assert (tmp_path / "roc.csv").read_text(encoding="utf-8-sig").splitlines()[1] == f"0,{saved},1", cell


def test_csv_of_hostile_names_holds_no_formula_and_quotes_what_it_must(
    visit: Callable[..., Opened], tmp_path: Path
) -> None:
    page = visit("hostile").page

    with page.expect_download() as download:
        page.locator("#quality button[data-save=csv]").first.click()

    download.value.save_as(tmp_path / "quality.csv")
    text = (tmp_path / "quality.csv").read_text(encoding="utf-8-sig")
    assert not re.search(r"(^|,)\"?[=@+]", text, re.MULTILINE)
    assert f"\"'{HOSTILE[5]}".replace('("', '(""')[:14] in text


def test_colours_follow_the_theme_while_the_page_is_open(visit: Callable[..., Opened]) -> None:
    page = visit("plain").page
    _scroll_through(page)
    colour = "getComputedStyle(document.querySelector('#figure-roc .xtick text')).fill"
    before = page.evaluate(colour)

    page.emulate_media(color_scheme="dark")

    assert before == "rgb(27, 36, 48)"
    expect(page.locator("#figure-roc .xtick text").first).to_have_css("fill", "rgb(232, 237, 242)")


def test_page_prints_in_light_colours_with_its_figures(visit: Callable[..., Opened], tmp_path: Path) -> None:
    opened = visit("plain", scheme="dark")
    _wait_for_figures(opened.page)

    opened.page.pdf(path=tmp_path / "plain.pdf", format="A4")

    assert (tmp_path / "plain.pdf").stat().st_size > 50_000
    assert opened.page.locator("#figure-drift svg.main-svg").count() > 0  # far below the screen: printing drew it
    assert opened.complaints == []
    assert opened.page.evaluate("'printing' in document.documentElement.dataset") is False
