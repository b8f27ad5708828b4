"""One browser a module, and pictures to be looked at."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.chromium import ARGUMENTS, CHROMIUM, Picture
from tests.waiting import PATIENCE_S

expect.set_options(timeout=PATIENCE_S * 1000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None, "CI has chromium; the Makefile installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def picture() -> Picture:
    """Keeps a picture of a page in the folder that HIPFED_SCREENSHOTS names; without one takes none, which is slow."""
    named = os.environ.get("HIPFED_SCREENSHOTS")

    def take(page: Page, name: str, *, full_page: bool = False) -> None:
        if named:
            page.screenshot(path=Path(named) / f"{name}.png", full_page=full_page)

    return take
