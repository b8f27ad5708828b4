"""Flower's internals that hipfed rests on: each is listed in ARCHITECTURE.md, and none is used that is not."""

import ast
import re
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = ("flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.simulation")


def _private_imports() -> dict[str, set[str]]:
    """Modules of Flower's that are no part of its interface, by the file that imports them."""
    found: dict[str, set[str]] = {}
    for folder in ("client", "server", "shared_model", "simulation"):
        for path in (ROOT / folder).rglob("*.py"):
            names = {
                node.module
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "flwr"
            }
            if private := {name for name in names if name not in PUBLIC}:
                found[path.relative_to(ROOT).as_posix()] = private
    return found


def test_internals_of_flower_that_are_used_are_listed_with_what_ends_them() -> None:
    _, _, text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").partition("## Flower's internals\n")
    rows = re.findall(r"^\| \[[^\]]*\]\(([^)]*)\) \| ([^|]*) \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    listed = {path: set(re.findall(r"`(flwr[\w.]*)`", names)) for path, names, _, _ in rows}

    assert listed == _private_imports()
    assert f"flwr {version('flwr')}" in text
