"""What tests do to a registry, by its own ways and by others."""

import sqlite3
from contextlib import closing
from pathlib import Path

from server.enrolment.authority import Authority
from server.enrolment.registry import Registry
from tests.server.enrolment.requests_of_hospitals import NOW, ask


def fill(registry: Registry, authority: Authority) -> None:
    """East and west are active, south was revoked: five entries."""
    for name in ("east", "west", "south"):
        registry.admit(ask(name), authority, now=NOW)
    registry.revoke("south", "left", authority, now=NOW)


def names(registry: Registry) -> list[str]:
    return [hospital.name for hospital in registry.active_hospitals()]


def edit(path: Path, *statements: str) -> None:
    """What somebody with a database editor does."""
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
