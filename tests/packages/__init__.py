"""Packages that a researcher could write, and their installation for a test."""

import shutil
from pathlib import Path

HERE = Path(__file__).parent


def install(package: str, target: Path) -> None:
    """Put a package of this folder into another as pip would leave it there."""
    source = HERE / package
    shutil.copy(source / f"{package}.py", target / f"{package}.py")
    describe(package, target, (source / "entry_points.txt").read_text(encoding="utf-8"))


def describe(package: str, target: Path, entry_points: str) -> None:
    """What pip leaves beside a package's modules: its name, and its entry points."""
    info = target / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")
