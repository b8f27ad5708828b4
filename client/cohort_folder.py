"""The hospitals of a cohort's folder."""

from pathlib import Path


def list_hospitals(cohort: Path) -> list[Path]:
    """The hospitals of a cohort: its sub-folders, sorted by name; files and hidden folders are none."""
    return sorted(path for path in cohort.iterdir() if path.is_dir() and not path.name.startswith("."))
