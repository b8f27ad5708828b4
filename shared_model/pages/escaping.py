"""Text of a study made safe for the places of a page where autoescaping does not reach: JSON in scripts, figures."""

import json
import unicodedata
from html import escape

from markupsafe import Markup

LONGEST_LABEL = 30
_ISOLATE, _POP = "\u2068", "\u2069"  # Unicode's first strong isolate: a right-to-left name turns nothing around it
_OPENING = {"LRI", "RLI", "FSI"}
_TURNING = {"R", "AL", "AN", "LRE", "LRO", "RLE", "RLO", "LRI", "RLI", "FSI", "PDF", "PDI"}
_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def script_json(value: object) -> Markup:
    """JSON for a script element: no character of it can end the element or begin another."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, safe in _IN_SCRIPT.items():
        text = text.replace(character, safe)
    return Markup(text)  # noqa: S704 - escaped just above


def figure_text(text: str, *, longest: int = LONGEST_LABEL) -> str:
    """A name as plotly may show it: its subset of HTML is escaped, long names are cut, right-to-left ones isolated.

    Args:
        text: any text of a study.
        longest: characters that are left of it; the tables carry the whole.
    """
    printable = "".join(character if character.isprintable() else " " for character in text)
    cut = printable if len(printable) <= longest else printable[: longest - 1] + "…"
    safe = escape(cut, quote=False).replace("$", "&#36;")  # between dollars plotly looks for TeX
    return f"{_ISOLATE}{safe}{_POP}" if _turns_around(cut) else safe


def isolated(text: str) -> str:
    """A name within a sentence: one that turns the direction of writing turns nothing around it.

    It cannot end its isolation, nor leave another open; names that are isolated within the text stay so.
    """
    if text.isascii() or not _turns_around(text):
        return text
    kept, n_open = [], 0
    for character in text:
        if unicodedata.bidirectional(character) in _OPENING:
            n_open += 1
        elif character == _POP:
            if not n_open:
                continue
            n_open -= 1
        kept.append(character)
    return f"{_ISOLATE}{''.join(kept)}{_POP * (n_open + 1)}"


def _turns_around(text: str) -> bool:
    """True if a text holds letters that are written from right to left, or marks that turn the direction."""
    return any(unicodedata.bidirectional(character) in _TURNING for character in text)
