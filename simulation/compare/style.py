"""The style of figures: colours that the colour-blind tell apart, and plain axes."""

from typing import Any

# Okabe and Ito 2008, Color Universal Design.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
GRAY = "#555555"
DPI = 150


def plain(axes: Any) -> None:
    """Take away the frame that says nothing."""
    axes.spines[["top", "right"]].set_visible(False)
