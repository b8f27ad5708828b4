import base64
import gzip
import hashlib
import re
from html import unescape
from importlib.resources import files
from pathlib import Path

import pytest

from shared_model.pages.blocks import Figure, Folded, Grid, Marked, Section, Table, Text, list_figures
from shared_model.pages.document import WORDS, content_policy, page_environment, render_page, show_cell
from shared_model.pages.wording import Words

TABLE = Table("numbers", ("name", "value"), (("a", 0.12344), ("b", None), ("c", Marked("amber", "amber"))), "numbers")
FIGURE = Figure(
    "one", "A figure", "A line that rises.", "Read so.", [{"type": "scatter", "x": [1], "y": [2]}], {"yaxis": {}}, TABLE
)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    (tmp_path / "own.html").write_text('{% extends "page.html" %}{% block title %}{{ name }}{% endblock %}')
    return tmp_path


def _render(folder: Path, *sections: Section, name: str = "page") -> str:
    return render_page(page_environment(folder), "own.html", words=Words(WORDS), sections=sections, name=name)


def _scripts(page: str) -> list[tuple[str, str]]:
    return re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_policy_lets_exactly_the_page_s_own_scripts_run_and_no_request(template: Path) -> None:
    page = _render(template, Section("s", "S", (FIGURE,)))

    policy = unescape(re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[0])
    (own,) = [text for attributes, text in _scripts(page) if not attributes]
    (packed,) = [text for attributes, text in _scripts(page) if 'id="plotly"' in attributes]
    plotly = gzip.decompress(base64.b64decode(packed)).decode()
    assert plotly == (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    assert f"script-src {_hash(own)} {_hash(plotly)};" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "img-src data: blob:" in policy
    assert "http" not in policy
    assert "unsafe-eval" not in policy


def test_page_without_figures_carries_no_plotly(template: Path) -> None:
    assert len(_render(template, Section("s", "S", (Text("words"),)))) < 100_000


def test_every_block_is_escaped(template: Path) -> None:
    bad = '<img src=x onerror="harm()">'
    table = Table(bad, (bad,), ((bad,), (Marked(bad, "red"),)), "t")
    page = _render(template, Section("s", bad, (Text(bad), table, Folded(bad, (Text(bad),)))), name=bad)

    assert "<img" not in page
    assert page.count("&lt;img src=x onerror=") >= 8


def test_figure_has_its_text_its_table_and_its_buttons(template: Path) -> None:
    page = _render(template, Section("s", "S", (Grid((FIGURE,)),)))

    assert 'role="img" aria-label="A line that rises."' in page
    assert '<td class="number">0.1234</td>' in page
    assert '<td class="none">not available</td>' in page
    assert re.search(r'mark-amber"><span aria-hidden="true" class="symbol">▲</span> amber', page)
    assert list(re.findall(r'data-save="(\w+)"', page)) == ["png", "svg", "csv"]


def test_name_that_a_template_lacks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "own.html").write_text("{{ nothing }}")

    with pytest.raises(Exception, match="'nothing' is undefined"):
        page_environment(tmp_path).get_template("own.html").render()


def test_figures_are_found_in_grids_and_folded_parts() -> None:
    assert list_figures([Text("t"), Folded("f", (Grid((FIGURE,)), FIGURE)), FIGURE]) == [FIGURE] * 3


def test_policy_of_no_script_runs_none() -> None:
    assert "script-src ;" in content_policy(scripts=[])


@pytest.mark.parametrize(("cell", "shown"), [("text", "text"), (3, "3"), (0.50612, "0.5061"), (None, "not available")])
def test_cell_is_shown_with_four_digits_or_in_words(cell: str | float | None, shown: str) -> None:
    assert show_cell(cell) == shown
