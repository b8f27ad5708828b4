from io import StringIO

import pytest
from rich.console import Console

from shared_model.pages.screen_table import print_table

HEADINGS = ("test part", "n", "AUC", "95 % CI")
ROWS = (("all hospitals", "241", "0.687", "0.547-0.800"), ("医院", "78", "0.510", ""), ("east", "", "", "suppressed"))


def _show(*, width: int, is_terminal: bool) -> list[str]:
    screen = StringIO()
    print_table(Console(file=screen, width=width, force_terminal=is_terminal, color_system=None), HEADINGS, ROWS)
    return screen.getvalue().splitlines()


TABLE = [
    "test part      n    AUC    95 % CI",
    "all hospitals  241  0.687  0.547-0.800",
    "医院           78   0.510",
    "east                       suppressed",
]


@pytest.mark.parametrize(("width", "is_terminal"), [(80, True), (38, True), (20, False)])
def test_table_stands_in_columns_where_they_fit_or_no_terminal_ends_the_line(width: int, *, is_terminal: bool) -> None:
    assert _show(width=width, is_terminal=is_terminal) == TABLE


def test_row_is_a_block_of_named_cells_where_columns_do_not_fit() -> None:
    assert _show(width=24, is_terminal=True) == [
        "all hospitals",
        "  n 241, AUC 0.687,",
        "  95 % CI 0.547-0.800",
        "医院",
        "  n 78, AUC 0.510",
        "east",
        "  95 % CI suppressed",
    ]


@pytest.mark.parametrize("width", [1, 10, 24, 60, 80])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_no_cell_is_ever_cut(width: int, *, is_terminal: bool) -> None:
    shown = "\n".join(_show(width=width, is_terminal=is_terminal))

    assert all(cell in shown for row in ROWS for cell in row)
    assert "…" not in shown
