"""Flower's SuperExec, which starts the ServerApp: `python -P -m server.flower.superexec OPTIONS`.

Flower puts the token of a task, which lets its holder act as the ServerApp, on a command line, which every user of the
machine can read (flwr 1.41). Here it is in memory that the program alone is given.
"""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from flwr.supercore.cli import flower_superexec
from flwr.supercore.superexec.executor import subprocess_executor

FLOWER = "1.41.0"


def start_without_token(command: list[str], **options: int) -> subprocess.Popen[bytes]:
    """Start Flower's command with its token in a file without a name, which ends with the processes that hold it.

    Args:
        command: with `--token TOKEN`.
        options: of `subprocess.Popen`.
    """
    index = command.index("--token")
    file = os.memfd_create("token")
    try:
        os.write(file, command[index + 1].encode())
        words = [*command[:index], "--token-file", str(Path("/dev/fd") / str(file)), *command[index + 2 :]]
        return subprocess.Popen(words, pass_fds=(file,), **options)  # type: ignore[call-overload,no-any-return] # noqa: S603
    finally:
        os.close(file)


class _Subprocess:
    """What Flower's executor uses of `subprocess`."""

    DEVNULL = subprocess.DEVNULL
    Popen = staticmethod(start_without_token)


def main() -> None:
    """Run Flower's command with this process's options.

    Raises:
        SystemExit: Flower is of another version, whose executor is not known.
    """
    if version("flwr") != FLOWER:
        sys.exit(
            f"flwr: expected {FLOWER}, which this SuperExec is made for, got {version('flwr')}. Install hipfed anew."
        )
    subprocess_executor.subprocess = _Subprocess  # type: ignore[attr-defined,assignment]
    flower_superexec()


if __name__ == "__main__":
    main()
