"""A hospital's entry of quality.json in words."""

from collections.abc import Mapping
from typing import Any

from shared_model.quality.checks import CheckFinding

QUALITY_FILE = "quality.json"


def describe_findings(entry: Mapping[str, Any], *, only: str = "") -> str:
    """A hospital's entry of quality.json in a line: grade by grade what was found; "" for nothing.

    Args:
        entry: of the hospital.
        only: a grade; "" for both, each named.
    """
    lines = []
    for grade in ("red", "amber"):
        found = [str(CheckFinding(**finding)) for finding in entry.get("findings", ()) if finding["grade"] == grade]
        if found and only in {"", grade}:
            lines.append(", ".join(found) if only else f"{grade}: {', '.join(found)}")
    return "; ".join(lines)
