"""Flower's SuperLink as a process that is patient with its database: `python -P -m server.superlink OPTIONS`.

Flower keeps the pieces of models in SQLite and waits 5 s for its lock; then it answers 500, and a heartbeat, a question
or an answer is lost (flwr 1.41, which has no option for it). To remove an answer of 376 MB takes longer on a slow disk.
"""

from __future__ import annotations

from flwr.supercore import sql_mixin
from flwr.supercore.constant import SQLITE_PRAGMAS
from flwr.superlink.cli import flower_superlink

BUSY_MS = 25_000  # below the 30 s after which Flower's clients give up an answer, and ask again


def be_patient() -> None:
    """Let connections to the database that are made from now on wait longer."""
    pragmas = {**dict(SQLITE_PRAGMAS), "busy_timeout": str(BUSY_MS)}
    sql_mixin.SQLITE_PRAGMAS = tuple(pragmas.items())  # type: ignore[assignment,attr-defined] # as many as before


def main() -> None:
    """Run Flower's command with this process's options."""
    be_patient()
    flower_superlink()


if __name__ == "__main__":
    main()
