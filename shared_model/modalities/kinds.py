"""Kinds of modality from other packages, by the name of their section in schema.toml.

A package adds a kind by an entry point of the group `hipfed.modalities`: its name is the kind, its object the class
(`modality.Modality`). simulation/README.md has an example.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from shared_model.errors import SchemaError

GROUP = "hipfed.modalities"
BUILT_IN = ("static", "series", "events", "images")


@cache
def entry_points_of(group: str) -> Mapping[str, EntryPoint]:
    """Entry points of the installed packages by name.

    Raises:
        SchemaError: two packages give one name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise SchemaError(
                f"{group}, {entry.name}: expected one package with this name, got {other.value} and {entry.value}. "
                "Uninstall one of them."
            )
    return found


def load_kind(kind: str) -> Any:
    """The class of a kind that another package adds.

    Raises:
        SchemaError: no installed package has this kind; the message lists those that there are.
    """
    found = entry_points_of(GROUP)
    if kind not in found:
        known = ", ".join([*BUILT_IN, *sorted(found)])
        raise SchemaError(
            f"section {kind!r}: expected a kind of modality that is installed ({known}), got another. Correct its "
            "name, or install the package that adds it."
        )
    return found[kind].load()
