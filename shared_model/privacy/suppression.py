"""Small-cell rule: which groups may be released, and what else is hidden so that subtraction reveals none of the rest.

A group is released with at least 10 patients, 5 events and 5 non-events; an aggregate joins at least 3 sites. A site
may tighten these numbers, never loosen them. A hidden group and a true zero look the same (`suppressed_row`). Messages
leave out the counts of a group: a small count is what the rule protects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from shared_model.config import Settings
from shared_model.errors import SettingsError, SuppressedError

PATIENTS_PER_BIN = 10


@dataclass(frozen=True)
class SiteRow:
    """What a table would say of one site.

    Attributes:
        n: patients.
        events: patients with outcome 1.
        released: whether the row is to be printed: the rule allows it and the site agreed.
    """

    n: int
    events: int
    released: bool


@dataclass(frozen=True)
class SmallCellRule:
    """Smallest group that may be released. Fixed at enrolment; see `tighten`.

    Attributes:
        min_patients: patients in a group, from 1.
        min_events: of them with outcome 1, from 1.
        min_non_events: of them with outcome 0, from 1.
        min_sites: sites in an aggregate, from 1; a study of fewer than three sites must say so itself.

    Raises:
        SettingsError: a number is below its lowest value.
    """

    min_patients: int = 10
    min_events: int = 5
    min_non_events: int = 5
    min_sites: int = 3

    def __post_init__(self) -> None:
        lowest = {"min_patients": 1, "min_events": 1, "min_non_events": 1, "min_sites": 1}
        _refuse_lower(asdict(self), lowest, where="small-cell rule", remedy="Raise it.")

    @classmethod
    def of(cls, settings: Settings) -> SmallCellRule:
        """The rule of a run."""
        return cls(settings.min_patients, settings.min_events, settings.min_non_events, settings.min_sites)

    def tighten(
        self,
        *,
        min_patients: int | None = None,
        min_events: int | None = None,
        min_non_events: int | None = None,
        min_sites: int | None = None,
    ) -> SmallCellRule:
        """The rule with some numbers raised; None keeps a number.

        Raises:
            SettingsError: a number would fall; the message lists all that would.
        """
        asked = {
            "min_patients": min_patients,
            "min_events": min_events,
            "min_non_events": min_non_events,
            "min_sites": min_sites,
        }
        raised = asdict(self) | {name: value for name, value in asked.items() if value is not None}
        _refuse_lower(
            raised, asdict(self), where="small-cell rule of the site", remedy="A site may only tighten the rule."
        )
        return SmallCellRule(**raised)

    def may_release(self, n: int, events: int) -> bool:
        """True if numbers of a group may be released.

        Args:
            n: patients in the group.
            events: of them with outcome 1.

        Raises:
            ValueError: not 0 <= events <= n.
        """
        if not 0 <= events <= n:
            raise ValueError("group at small-cell rule: expected 0 <= events <= n, got other counts.")
        return n >= self.min_patients and events >= self.min_events and n - events >= self.min_non_events

    def shown_count(self, part: int, whole: int) -> int | None:
        """How many of a released group have something; None where few have it or few lack it.

        Args:
            part: patients who have it.
            whole: patients of the group.
        """
        few = 0 < part < self.min_patients or 0 < whole - part < self.min_patients
        return None if few else part

    def check_min_sites(self, n_sites: int) -> None:
        """An aggregate of so many sites may be formed.

        Raises:
            SuppressedError: too few sites.
        """
        if n_sites < self.min_sites:
            raise SuppressedError(
                f"aggregate: expected answers of at least {self.min_sites} sites (min-sites), got {n_sites}. "
                "Enrol or wait for more sites; a study of two sites must set min-sites = 2 before enrolment."
            )

    def complementary(self, sites: Mapping[str, SiteRow], *, known_rows: int = 0) -> frozenset[str]:
        """Sites to hide besides those not released, in a table that also prints the row of all sites together.

        The printed rows subtracted from the pooled row leave the hidden sites together. So released sites are hidden,
        smallest first (by n, then name), until the hidden ones are at least two that have patients and together pass
        the rule. Every other combination of printed rows is a larger group and passes too.

        Args:
            sites: every site in the pooled row.
            known_rows: how many hidden rows a reader may know already: 0 for a reader outside the study, 1 for a
                hospital that knows its own. The rest of the hidden sites must then pass the rule without those, and be
                two at least.

        Returns:
            Names of the further sites; none where nothing is hidden.

        Raises:
            SettingsError: known_rows is negative.
            SuppressedError: the pooled row must not be printed: even with every site hidden it gives one away.
            ValueError: a row's counts are not 0 <= events <= n, or a row is released against the rule.
        """
        if known_rows < 0:
            raise SettingsError(f"known_rows at suppression: expected 0 or more, got {known_rows}. Set it to 0 or 1.")
        for row in sites.values():
            if row.released and not self.may_release(row.n, row.events):
                raise ValueError("row at suppression: expected released rows to pass the small-cell rule, got another.")
        hidden = [row for row in sites.values() if not row.released]
        waiting = sorted((name for name, row in sites.items() if row.released), key=lambda name: (sites[name].n, name))
        further: list[str] = []
        while hidden and not self._hides_each(hidden, known_rows=known_rows):
            if not waiting:
                raise SuppressedError(
                    "pooled row at table of sites: expected hidden sites that together pass the small-cell rule, "
                    "got too few patients or sites. Leave out the pooled row."
                )
            further.append(waiting.pop(0))
            hidden.append(sites[further[-1]])
        return frozenset(further)

    def _hides_each(self, hidden: Iterable[SiteRow], *, known_rows: int) -> bool:
        rows = [row for row in hidden if row.n]  # an empty site hides nobody
        if len(rows) < 2 + known_rows:
            return False
        unknown = len(rows) - known_rows
        events = sum(sorted(row.events for row in rows)[:unknown])
        others = sum(sorted(row.n - row.events for row in rows)[:unknown])
        patients = sum(sorted(row.n for row in rows)[:unknown])
        return patients >= self.min_patients and events >= self.min_events and others >= self.min_non_events


def suppressed_row() -> dict[str, bool]:
    """What stands in place of a hidden group, also where the group is truly empty."""
    return {"suppressed": True}


def histogram_bins_allowed(n: int) -> int:
    """Most bins that a released histogram of n patients may have: one per 10 patients; 0 = no histogram.

    Raises:
        ValueError: n is negative.
    """
    if n < 0:
        raise ValueError("histogram: expected n of at least 0, got a negative number.")
    return n // PATIENTS_PER_BIN


def _refuse_lower(numbers: Mapping[str, int], lowest: Mapping[str, int], *, where: str, remedy: str) -> None:
    faults = [
        f"{name.replace('_', '-')} at {where}: expected at least {lowest[name]}, got {value}. {remedy}"
        for name, value in numbers.items()
        if value < lowest[name]
    ]
    if faults:
        raise SettingsError("\n".join(faults))
