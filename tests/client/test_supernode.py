"""The SuperNode's process ends with Flower's loop."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import client.supernode

PROGRAM = Path(client.supernode.__file__).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("loop", "status"), [("return", 1), ("raise ValueError('lost')", 1), ("sys.exit(3)", 3)], ids=str
)
def test_supernode_ends_with_its_loop_whatever_threads_it_has_left(tmp_path: Path, loop: str, status: int) -> None:
    package = tmp_path / "flwr" / "supernode" / "cli"
    package.mkdir(parents=True)
    lasting = "" if "exit" in loop else "threading.Thread(target=time.sleep, args=(60,)).start()"
    lines = ("import sys, threading, time", "def flower_supernode():", f"    {lasting}", f"    {loop}")
    (package / "__init__.py").write_text("\n".join(lines))
    for folder in (package.parent, package.parent.parent):
        (folder / "__init__.py").touch()

    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == status
    assert ("ValueError: lost" in done.stderr) is ("lost" in loop)
