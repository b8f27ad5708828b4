"""Packages that a researcher could write, and their installation for a test."""

from __future__ import annotations

import shutil
from pathlib import Path

HERE = Path(__file__).parent


def install(package: str, target: Path) -> None:
    """Put a package into a folder as pip would leave it there: its module, and its entry points beside."""
    source = HERE / package
    shutil.copy(source / f"{package}.py", target / f"{package}.py")
    info = target / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    shutil.copy(source / "entry_points.txt", info / "entry_points.txt")
