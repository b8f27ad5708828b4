import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from server.report.content import read_run
from server.report.page import WORDS_FILES, list_sections, render_report
from server.report.writing import write_report
from shared_model.errors import SettingsError, StudyError
from shared_model.pages.blocks import list_figures
from shared_model.pages.wording import Words
from tests.server.report.run_folders import (
    write_failed_run,
    write_hostile_run,
    write_run,
    write_suppressed_run,
)

WORDS = Words(*WORDS_FILES)


class _Tags(HTMLParser):
    """Elements, attributes and ids of a page, and whether elements close in order."""

    VOID = frozenset({"meta", "link", "rect", "path", "br", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [str(value) for name, value in attrs if name == "id"]
        self.links += [str(value) for name, value in attrs if name in {"href", "src"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _parse(page: str) -> _Tags:
    tags = _Tags()
    tags.feed(page)
    assert not tags.open
    return tags


def test_page_is_well_formed_with_unique_ids_and_links_that_stay_in_it(tmp_path: Path) -> None:
    tags = _parse(render_report(write_run(tmp_path)))

    assert len(tags.ids) == len(set(tags.ids))
    assert {link.partition("#")[0] for link in tags.links} == {"", "data:,"}
    assert {link[1:] for link in tags.links if link.startswith("#")} <= set(tags.ids)


def test_hostile_names_are_text_and_make_no_element_and_no_attribute(tmp_path: Path) -> None:
    plain = _parse(render_report(write_run(tmp_path / "plain")))

    page = render_report(write_hostile_run(tmp_path / "hostile"))

    hostile = _parse(page)
    assert hostile.tags <= plain.tags
    assert hostile.attributes <= plain.attributes
    assert "&lt;script&gt;window.harmed=1&lt;/script&gt;" in page
    assert "{{ 7 * 7 }} {n}" in page
    assert "x" * 200 in page


def test_hostile_names_in_figures_are_no_markup_of_plotly(tmp_path: Path) -> None:
    figures = [
        figure
        for section in list_sections(read_run(write_hostile_run(tmp_path)), WORDS)
        for figure in list_figures(section.blocks)
    ]

    shown = json.dumps([{"data": list(figure.data), "layout": figure.layout} for figure in figures])
    assert "harmed" in shown
    assert not re.findall(r"<(?!extra>|/extra>)", shown)


@pytest.mark.parametrize("kind", ["plain", "hostile", "hundred", "one", "no-images"])
def test_every_figure_is_one_that_plotly_accepts(tmp_path: Path, kind: str) -> None:
    run = {
        "plain": lambda: write_run(tmp_path),
        "hostile": lambda: write_hostile_run(tmp_path),
        "hundred": lambda: write_run(tmp_path, hospitals=[f"hospital {i}" for i in range(100)]),
        "one": lambda: write_run(tmp_path, hospitals=["only"]),
        "no-images": lambda: write_run(tmp_path, modalities=["static"]),
    }[kind]()
    figures = [figure for section in list_sections(read_run(run), WORDS) for figure in list_figures(section.blocks)]

    assert len(figures) > 10
    for figure in figures:
        text = json.dumps({"data": list(figure.data), "layout": figure.layout}, allow_nan=False)
        go.Figure(json.loads(re.sub(r"var\(--[a-z]+\)", "#123456", text)))
        assert figure.alt
        assert figure.table.rows


def test_hundred_hospitals_all_stand_in_the_forest_plot(tmp_path: Path) -> None:
    names = [f"hospital {i}" for i in range(100)]
    page = render_report(write_run(tmp_path, hospitals=names))

    figures = json.loads(re.findall(r'id="figure-data">(.*?)</script>', page, re.DOTALL)[0])
    assert figures["auc_by_hospital"]["layout"]["yaxis"]["ticktext"] == ["all hospitals", *names]
    assert figures["auc_by_hospital"]["height"] > 2000


@pytest.mark.parametrize("write_one", [write_suppressed_run, lambda path: write_failed_run(path, reason="<b>no</b>")])
def test_run_without_results_has_a_whole_page(tmp_path: Path, write_one: Any) -> None:
    page = render_report(write_one(tmp_path))

    _parse(page)
    assert "TRIPOD+AI" in page
    assert "<b>no" not in page
    assert "Research use only, not a medical device" in page


def test_report_of_20_rounds_and_20_hospitals_is_small(tmp_path: Path) -> None:
    modalities = ["static", "vitals", "medications", "hip", "chest"]
    names = [f"hospital {i}" for i in range(20)]
    run = write_run(tmp_path / "large", hospitals=names, modalities=modalities, features=40, rounds=20)
    assert write_report(run).stat().st_size < 6_000_000


def test_report_is_made_of_the_folder_alone_and_is_the_same_each_time(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")

    assert render_report(run) == render_report(run)
    assert str(tmp_path) not in render_report(run)


def test_report_goes_where_it_is_asked_to(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")

    assert write_report(run) == run / "report.html"
    assert write_report(run, tmp_path / "elsewhere.html").read_text() == (run / "report.html").read_text()


def test_report_of_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"expected a run folder with status\.json, got none"):
        write_report(tmp_path)


def test_report_into_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected a file, got a folder"):
        write_report(write_run(tmp_path / "run"), tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("metrics.json", "{", r"metrics\.json: expected JSON of a run"),
        ("metrics.json", "[]", r"metrics\.json: expected a JSON object"),
        (
            "metrics.json",
            '{"test": {"pooled": {"n": "many"}}}',
            r"metrics\.json: expected the fields of a run, got at ",
        ),
        ("rounds.jsonl", "{}\n", r"rounds\.jsonl: expected the fields of a run, got at round"),
        ("rounds.jsonl", "{\n", r"rounds\.jsonl: expected JSON of a run"),
        ("explanations.json", '{"modalities": 3}', r"explanations\.json: expected the fields of a run"),
    ],
)
def test_file_that_no_run_writes_is_named_with_what_is_wrong(tmp_path: Path, name: str, text: str, told: str) -> None:
    run = write_run(tmp_path)
    (run / name).write_text(text)

    with pytest.raises(StudyError, match=told):
        render_report(run)


def test_words_that_are_asked_for_by_name_exist() -> None:
    folder = Path(WORDS_FILES[1]).parent
    sources = [*folder.rglob("*.py"), *folder.rglob("*.html"), *Path(WORDS_FILES[0]).parent.rglob("*.html")]
    keys = {key for source in sources for key in re.findall(r'words\(\s*"([a-z_.]+[a-z_])"', source.read_text())}

    assert len(keys) > 100
    missing = []
    for key in sorted(keys):
        try:
            WORDS(key)
        except KeyError:
            missing.append(key)
    assert missing == []


def test_titles_skip_no_level(tmp_path: Path) -> None:
    """Who reads by ear goes from title to title."""
    page = write_report(write_run(tmp_path, modalities=["static", "hip"]), None).read_text()

    levels = [int(level) for level in re.findall(r"<h([1-6])[ >]", page)]

    assert levels[0] == 1
    assert set(levels) == {1, 2, 3, 4}
    assert all(after - before <= 1 for before, after in pairwise(levels))
