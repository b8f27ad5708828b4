"""Contrast of every colour against what it stands on, in light and in dark: WCAG 2.1 AA."""

import re

import pytest

from shared_model.pages.document import THEME

CSS = THEME.read_text(encoding="utf-8")
TEXT = ("ink", "soft", "strong", "link", "good", "amber", "red")
SERIES = ("blue", "orange", "green", "vermilion", "purple", "gray")


def _palette(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))


LIGHT = _palette(CSS[: CSS.index("@media")])
DARK = LIGHT | _palette(CSS[CSS.index("@media screen and (prefers-color-scheme: dark)") :])


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_black_on_white_is_21() -> None:
    assert _contrast("#000000", "#ffffff") == pytest.approx(21.0)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["paper", "surface", "tint", "notice"])
@pytest.mark.parametrize("text", TEXT)
def test_text_stands_out_from_every_ground(palette: dict[str, str], ground: str, text: str) -> None:
    assert _contrast(palette[text], palette[ground]) >= 4.5


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("series", SERIES)
def test_lines_of_figures_stand_out_from_their_ground(palette: dict[str, str], series: str) -> None:
    assert _contrast(palette[series], palette["surface"]) >= 3.0


def test_dark_theme_changes_every_colour() -> None:
    assert {name for name in LIGHT if LIGHT[name] == DARK[name]} == set()
