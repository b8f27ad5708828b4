"""A whole page as one file: templates, theme and scripts put together under a strict content security policy."""

import base64
import gzip
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

import jinja2
from markupsafe import Markup

from shared_model.pages.blocks import Cell, Marked, Section, list_figures
from shared_model.pages.escaping import script_json
from shared_model.pages.numbers import MISSING, significant
from shared_model.pages.wording import Words

_HERE = Path(__file__).parent
WORDS, THEME = _HERE / "english.toml", _HERE / "theme.css"
_SYMBOLS = {"good": "●", "amber": "▲", "red": "■", "unknown": "○"}


def page_environment(*folders: Path) -> jinja2.Environment:
    """Templates of these folders and the shared ones; everything is escaped, and a name that is missing is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, _HERE / "templates"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": show_cell, "is_number": _is_number}
    environment.globals["symbols"] = _SYMBOLS
    return environment


def render_page(
    environment: jinja2.Environment,
    template: str,
    *,
    words: Words,
    sections: tuple[Section, ...],
    style: str = "",
    scripts: tuple[str, ...] = (),
    allowed: Mapping[str, str] | None = None,
    **context: object,
) -> str:
    """A page that opens offline. Plotly lies compressed at its end and is unpacked once the rest has been painted.

    Args:
        environment: from `page_environment`.
        template: that extends page.html.
        words: of the page, with the shared ones.
        sections: with their figures.
        style: of this page alone, after the shared theme.
        scripts: further ones, which run after the page's own.
        allowed: what the page's policy allows beyond `content_policy`, by directive.
        context: what else the template shows.
    """
    figures = [figure for section in sections for figure in list_figures(section.blocks)]
    specifications: dict[str, object] = {
        one.name: {"data": list(one.data), "layout": one.layout, "height": one.height} for one in figures
    }
    plotly = _pack_plotly()
    return environment.get_template(template).render(
        words=words,
        sections=sections,
        theme=Markup(THEME.read_text(encoding="utf-8") + style),  # noqa: S704 - our own files
        script=Markup(_read("figures.js")),  # noqa: S704 - our own file
        figures=script_json(specifications),
        plotly=plotly.packed if figures else "",
        scripts=[Markup(one) for one in scripts],  # noqa: S704 - our own files
        policy=page_policy(scripts, allowed),
        **context,
    )


@dataclass(frozen=True)
class PackedScript:
    """A script as a page carries it.

    Attributes:
        packed: its gzip in base64.
        hash: of its text, as a content security policy names it.
    """

    packed: str
    hash: str


@cache
def _pack_plotly() -> PackedScript:
    text = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    return PackedScript(base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode(), _hash(text))


def page_policy(scripts: Sequence[str] = (), allowed: Mapping[str, str] | None = None) -> str:
    """The policy of a page that `render_page` makes with the same arguments."""
    hashes = [_hash(_read("figures.js")), _pack_plotly().hash, *map(_hash, scripts)]
    return content_policy(scripts=hashes, allowed=allowed or {})


def content_policy(*, scripts: Sequence[str], allowed: Mapping[str, str] = MappingProxyType({})) -> str:
    """What a browser lets the page do: run the scripts of these hashes and draw pictures; no request, no other script.

    Plotly makes styles as it draws. They can load nothing, as pictures may only be data that the page holds.
    """
    directives = {
        "default-src": "'none'",
        "script-src": " ".join(scripts),
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
        **allowed,
    }
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def show_cell(cell: Cell) -> str:
    """A table's cell as text; a `Marked` one is its word.

    >>> show_cell(0.50612), show_cell(None), show_cell(12_345)
    ('0.5061', 'not available', '12345')
    """
    if isinstance(cell, Marked):
        return cell.text
    if cell is None:
        return MISSING
    return significant(cell) if isinstance(cell, float) else str(cell)


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, int | float)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
