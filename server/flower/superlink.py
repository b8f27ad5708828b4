"""Flower's SuperLink as a process that is patient: `python -P -m server.flower.superlink OPTIONS`.

Flower keeps the pieces of models in SQLite and waits 5 s for its lock; then it answers 500, and a heartbeat, a question
or an answer is lost (flwr 1.41, which has no option for it). To remove an answer of 376 MB takes longer on a slow disk.
It takes a ServerApp that has said nothing 30 s after its start for lost, and starts another one beside it.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any

from flwr.supercore import sql_mixin
from flwr.supercore.constant import SQLITE_PRAGMAS
from flwr.supercore.corestate import sql_corestate
from flwr.superlink.cli import flower_superlink

BUSY_MS = 25_000  # below the 30 s after which Flower's clients give up an answer, and ask again
LEASE_S, SILENCE_S = 300, 60  # within which a ServerApp says its first word, and the next one
FLOWER = "1.41.0"  # what is changed here are parts that Flower does not promise to keep


def be_patient() -> None:
    """Let connections to the database that are made from now on wait longer."""
    pragmas = {**dict(SQLITE_PRAGMAS), "busy_timeout": str(BUSY_MS)}
    sql_mixin.SQLITE_PRAGMAS = tuple(pragmas.items())  # type: ignore[assignment,attr-defined] # as many as before


def lend_longer() -> None:
    """Wait longer for a ServerApp's first word, and as long as ever for the next one."""
    sql_corestate.HEARTBEAT_DEFAULT_INTERVAL = LEASE_S  # type: ignore[attr-defined]
    sql_corestate.HEARTBEAT_PATIENCE = SILENCE_S / LEASE_S  # type: ignore[attr-defined,assignment]


def start_own_superexec() -> None:
    """Let Flower start `server.flower.superexec`, which keeps the ServerApp's token from command lines."""
    flower: Any = import_module("flwr.superlink.cli.flower_superlink")  # its name in the package is the function's
    words_of: Callable[..., list[str]] = flower._get_superexec_command  # noqa: SLF001 - no option says which program

    def command(*given: object, **options: object) -> list[str]:
        _, *words = words_of(*given, **options)
        return [sys.executable, "-P", "-m", "server.flower.superexec", *words]

    flower._get_superexec_command = command  # noqa: SLF001


def main() -> None:
    """Run Flower's command with this process's options.

    Raises:
        SystemExit: Flower is of another version.
    """
    if version("flwr") != FLOWER:
        sys.exit(
            f"flwr: expected {FLOWER}, which this SuperLink is made for, got {version('flwr')}. Install hipfed anew."
        )
    be_patient()
    lend_longer()
    start_own_superexec()
    flower_superlink()


if __name__ == "__main__":
    main()
