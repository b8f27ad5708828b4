"""A page as a browser's parser sees it: elements, text, tables."""

import base64
import io
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np
from PIL import Image

_VOID = {"meta", "link", "img", "input", "br", "rect", "path"}


@dataclass
class ParsedPage(HTMLParser):
    """Elements with their attributes, the text outside of scripts, and the cells of each table by its name."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""
    tables: dict[str, list[list[str]]] = field(default_factory=dict)

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements, self.text, self.tables = [], "", {}
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "table":
            self._rows = self.tables.setdefault(attributes.get("data-name", ""), [])
        if tag == "tr":
            self._rows.append([])
        if tag in {"th", "td"} and self._rows:
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if "script" in self._open or "style" in self._open:
            return
        self.text += data
        if {"th", "td"} & set(self._open) and self._rows and self._rows[-1]:
            self._rows[-1][-1] += data

    def of(self, tag: str) -> list[dict[str, str]]:
        """Attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def picture(self, kind: str) -> np.ndarray:
        """Pixels of the first image of a class."""
        source = next(one["src"] for one in self.of("img") if one.get("class") == kind)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))
