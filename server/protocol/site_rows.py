"""Hospitals' own rows beside the row of all together: hidden where they would reveal the rest."""

from collections.abc import Mapping
from typing import Any

from shared_model.errors import SuppressedError
from shared_model.privacy.suppression import SiteRow, SmallCellRule, suppressed_row

Rows = Mapping[str, Mapping[str, Any]]


def hide_rows(
    rows: Rows, *, n: int, events: int, rule: SmallCellRule, known_rows: int
) -> tuple[bool, dict[str, dict[str, Any]]]:
    """Which rows may be shown beside the row of all patients.

    Args:
        rows: by hospital (or group), what it released, with its `n` and `events`, or the suppressed row.
        n: patients of all together.
        events: deaths among them.
        rule: small-cell rule. A released row is hidden where subtracting it would reveal a small group.
        known_rows: rows that a reader knows besides: 1 for rows of hospitals, each of which is a reader.

    Returns:
        Whether the row of all together may be shown, and the rows with those to be hidden suppressed.
    """
    try:
        further = rule.complementary(_site_rows(rows, n=n, events=events), known_rows=known_rows)
        allowed = rule.may_release(n=n, events=events)
    except SuppressedError:
        further, allowed = frozenset(rows), False
    return allowed, {name: suppressed_row() if name in further else dict(row) for name, row in rows.items()}


def _site_rows(rows: Rows, *, n: int, events: int) -> dict[str, SiteRow]:
    """Counts as any reader can know them: of released rows, and for the hidden ones what is left, spread evenly."""
    released = {name: row for name, row in rows.items() if row != suppressed_row()}
    n_left = n - sum(int(row["n"]) for row in released.values())
    events_left = events - sum(int(row["events"]) for row in released.values())
    hidden = sorted(set(rows) - set(released))
    site_rows = {
        name: SiteRow(n=int(row["n"]), events=int(row["events"]), released=True) for name, row in released.items()
    }
    for i, name in enumerate(hidden):
        n_own, events_own = (left // len(hidden) + (i < left % len(hidden)) for left in (n_left, events_left))
        site_rows[name] = SiteRow(n=max(n_own, events_own), events=events_own, released=False)
    return site_rows
