"""The words of a page: one TOML file a page, so that they can be read, and translated, in one place."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from shared_model.pages.escaping import isolated

Entry = str | Mapping[str, "Entry"] | list[dict[str, str]]


class Words:
    """Texts by dotted key, from one or more files; a later file adds to an earlier one."""

    def __init__(self, *files: Path) -> None:
        self._entries: dict[str, Entry] = {}
        for file in files:
            self._entries |= tomllib.loads(file.read_text(encoding="utf-8"))

    def __call__(self, key: str, /, **values: str | int) -> str:
        """The text of a key, with values in its {places}: their braces mean nothing, and they turn nothing around them.

        Raises:
            KeyError: no text has this key, or a place has no value.
        """
        found = self._find(key)
        if not isinstance(found, str):
            raise KeyError(key)
        safe = {place: isolated(value) if isinstance(value, str) else value for place, value in values.items()}
        return found.format_map(safe) if safe else found

    def rows(self, key: str) -> list[dict[str, str]]:
        """The table (TOML's array of tables) of a key.

        Raises:
            KeyError: there is none.
        """
        found = self._find(key)
        if not isinstance(found, list):
            raise KeyError(key)
        return found

    def section(self, key: str) -> dict[str, str]:
        """All texts directly under a key.

        Raises:
            KeyError: there is none.
        """
        found = self._find(key)
        if not isinstance(found, Mapping):
            raise KeyError(key)
        return {name: text for name, text in found.items() if isinstance(text, str)}

    def _find(self, key: str) -> Entry:
        found: Entry = self._entries
        for part in key.split("."):
            if not isinstance(found, Mapping):
                raise KeyError(key)
            found = found[part]
        return found
