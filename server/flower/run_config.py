"""Keys of Flower's run config that are no settings: where things are, and who the nodes are."""

from collections.abc import Mapping

COHORT, SCHEMA, OUT, RESUME, ENROLLED = "cohort", "schema", "out", "resume", "enrolled"
PLACES = (COHORT, SCHEMA, OUT, RESUME, ENROLLED)


def format_enrolled(names: Mapping[int, str]) -> str:
    """Hospitals' names by node, as a value of the run config."""
    return ",".join(f"{node}:{name}" for node, name in sorted(names.items()))


def parse_enrolled(text: str) -> dict[int, str] | None:
    """What `format_enrolled` wrote; None for "", the value of a run without enrolment."""
    if not text:
        return None
    pairs = (entry.split(":", maxsplit=1) for entry in text.split(","))
    return {int(node): name for node, name in pairs}
