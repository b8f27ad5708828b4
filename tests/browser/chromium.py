"""A real browser, and what its pages complain of."""

import os
import shutil
from dataclasses import dataclass, field
from typing import Protocol

import pytest
from playwright.sync_api import Dialog, Page

from tests.waiting import PATIENCE_S

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="no chromium here: apt-get install chromium"
)

# Tiles and rows of shares of which the end lies outside: a cut interval reads like another one.
CUT = """[...document.querySelectorAll(".tile, .tile dt, .tile dd, .share-row dt, .share-row dd")]
    .filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.innerText)"""


def texts_cut(page: Page) -> dict[int, list[str]]:
    """Texts of the first screen that do not fit their place, by width in pixels of the window."""
    assert page.locator(".tile dd").count()
    found = {}
    for width in range(320, 1700, 40):
        page.set_viewport_size({"width": width, "height": 900})
        texts = page.evaluate(CUT)
        if texts:
            found[width] = texts
    return found


class Picture(Protocol):
    """Keeps a picture of a page, where somebody wants to look at it."""

    def __call__(self, page: Page, name: str, *, full_page: bool = False) -> None: ...


@dataclass
class Opened:
    """A page with all that it complained of and asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        def complain_of_dialog(dialog: Dialog) -> None:
            self.complaints.append(dialog.message)
            dialog.dismiss()

        self.page.set_default_timeout(PATIENCE_S * 1000)
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", complain_of_dialog)
