"""The dashboard's pages, and the parts of them that change while somebody looks on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from server.dashboard.comparison import MOST_RUNS, describe_comparison
from server.dashboard.reading import RunReader
from server.dashboard.records import STATES, RunDetail, RunSummary
from server.dashboard.run_view import describe_curves, describe_hospitals, describe_rounds, describe_run, list_curves
from server.dashboard.sharing import Shared
from server.dashboard.views import describe_row
from shared_model.pages.blocks import Section
from shared_model.pages.document import WORDS, page_environment, page_policy, render_page
from shared_model.pages.escaping import isolated
from shared_model.pages.wording import Words

_HERE = Path(__file__).parent
_ALLOWED = {"connect-src": "'self'", "frame-src": "'self'", "form-action": "'self'"}
FIGURE = "figure:"
ALL_RUNS = ""  # the topic of the list; a run's topic is its name


@dataclass(frozen=True)
class RenderedPage:
    """A page and its policy.

    Attributes:
        html: the page.
        policy: of its content, as the page itself has it.
    """

    html: str
    policy: str


@dataclass(frozen=True)
class _Row:
    run: RunSummary
    id: str
    html: Markup


class Pages:
    """Makes pages from what `RunReader` reads.

    Args:
        reader: of the runs.
    """

    def __init__(self, reader: RunReader) -> None:
        self._reader = reader
        self._words = Words(WORDS, _HERE / "english.toml")
        self._environment = page_environment(_HERE / "templates")
        self._style = (_HERE / "dashboard.css").read_text(encoding="utf-8")
        self._scripts = ((_HERE / "dashboard.js").read_text(encoding="utf-8"),)
        self._policy = page_policy(self._scripts, _ALLOWED)
        self._blocks = self._environment.get_template("parts.html")
        self._made = Shared()
        self._rows: dict[str, _Row] = {}

    def show_list(self) -> RenderedPage:
        """All runs, the one that changed last on top."""
        return self._made.get("list", self._show_list)

    def _show_list(self) -> RenderedPage:
        runs = sorted(self._reader.list_summaries(), key=lambda run: run.changed, reverse=True)
        rows = self._show_rows(runs).values()
        return self._render("list.html", rows=rows, states=STATES, most=MOST_RUNS, events="/events/")

    def show_run(self, name: str) -> RenderedPage | None:
        """A run; None if there is none of this name."""
        return self._made.get(("run", name), lambda: self._show_run(name))

    def _show_run(self, name: str) -> RenderedPage | None:
        run = self._reader.read_detail(name)
        if run is None:
            return None
        view = describe_run(run, self._words)
        return self._render(
            "run.html",
            sections=self._list_sections(run),
            view=view,
            path=quote(name),
            events=f"/events/{quote(name)}",
            quote=quote,
        )

    def show_comparison(self, names: Sequence[str]) -> RenderedPage:
        """Runs side by side; those that are not there are named."""
        return self._made.get(("comparison", *names), lambda: self._show_comparison(names))

    def _show_comparison(self, names: Sequence[str]) -> RenderedPage:
        wanted = list(dict.fromkeys(names))[:MOST_RUNS]
        read = {name: self._reader.read_detail(name) for name in wanted}
        runs = [run for run in read.values() if run is not None]
        sections = describe_comparison(runs, self._words) if len(runs) > 1 else ()
        missing = [isolated(name) for name, run in read.items() if run is None]
        return self._render("compare.html", sections=sections, runs=runs, missing=missing, quote=quote)

    def show_login(self, complaint: str = "", **values: int) -> RenderedPage:
        """The form for the token."""
        return self._render("login.html", complaint=self._words(complaint, **values) if complaint else "")

    def show_problem(self, key: str, **values: str) -> RenderedPage:
        """A page that says what is wrong."""
        return self._render("problem.html", title=self._words(f"{key}_title"), text=self._words(key, **values))

    def read_parts(self, topic: str) -> Mapping[str, str]:
        """Parts of the list or of a run's page, by id; figures are JSON."""
        if topic == ALL_RUNS:
            return self._show_rows(self._reader.list_summaries())
        run = self._reader.read_detail(topic)
        if run is None:
            return {"first": self._part("gone_of")}
        parts: dict[str, str] = {"first": self._part("first_of", describe_run(run, self._words), quote(topic), quote)}
        for describe in (describe_hospitals, describe_rounds):
            section = describe(run, self._words)
            parts[section.name] = self._part("section_part", section)
        for figure in list_curves(run, self._words):
            content = {"name": figure.name, "data": figure.data, "layout": figure.layout, "height": figure.height}
            content |= {"alt": figure.alt, "table": self._part("table_part", figure.table)}
            parts[f"{FIGURE}{figure.name}"] = json.dumps(content)
        return parts

    def _show_rows(self, runs: Sequence[RunSummary]) -> dict[str, Markup]:
        """Rows of the list by id; those of runs that are as they were are not made anew."""
        former, rows = self._rows, {}
        for run in runs:
            kept = former.get(run.name)
            rows[run.name] = kept if kept is not None and kept.run == run else self._make_row(run)
        self._rows = rows
        return {row.id: row.html for row in rows.values()}

    def _make_row(self, run: RunSummary) -> _Row:
        row = describe_row(run, self._words)
        return _Row(run, row.id, self._part("row_of", row))

    def _part(self, macro: str, *arguments: object) -> Markup:
        module = self._blocks.make_module({"words": self._words})
        return Markup(getattr(module, macro)(*arguments).strip())  # noqa: S704 - the template has escaped it

    def _list_sections(self, run: RunDetail) -> tuple[Section, ...]:
        makers = (describe_hospitals, describe_curves, describe_rounds)
        return tuple(describe(run, self._words) for describe in makers)

    def _render(self, template: str, *, sections: tuple[Section, ...] = (), **context: object) -> RenderedPage:
        html = render_page(
            self._environment,
            template,
            words=self._words,
            sections=sections,
            scripts=self._scripts,
            allowed=_ALLOWED,
            style=self._style,
            **{"events": "", **context},
        )
        return RenderedPage(html, self._policy)
