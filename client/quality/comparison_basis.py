"""The basis of a hospital's comparison: its own sums, those of the others, and the allowance for chance."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float64

from shared_model.privacy.suppression import SmallCellRule
from shared_model.quality.checks import FEWEST_OTHERS, LIMITS, CheckFinding, Limit, critical_p, critical_z, two_digits
from shared_model.quality.measure import Measure
from shared_model.quality.measures import Moments, Sums
from shared_model.schema import Schema


@dataclass(frozen=True)
class Bench:
    """One judgement of one hospital.

    Attributes:
        schema: the study.
        chosen: the modalities that are judged.
        rule: groups below it are not judged.
        own: the hospital's sums, zeros where too few patients.
        others: those of the other hospitals; empty where there is nobody to compare with.
        n_sites: hospitals that are judged in this run.
        judged: numbers judged so far, by check.
    """

    schema: Schema
    chosen: tuple[str, ...]
    rule: SmallCellRule
    own: Sums
    others: Sums = field(default_factory=dict)
    n_sites: int = 1
    judged: dict[str, int] = field(default_factory=dict)

    def min_z(self, n_items: int) -> float:
        """Standard errors that rule out chance, where so many items are judged at every hospital."""
        return critical_z(n_items * self.n_sites)

    def max_p(self, n_items: int) -> float:
        """The same as a p value."""
        return critical_p(n_items * self.n_sites)

    def count(self, check: str, n: int) -> None:
        """Note that a check looked at so many numbers."""
        self.judged[check] = self.judged.get(check, 0) + n

    def find(
        self, check: str, where: tuple[str, str], *, effect: float, value: float | None, limit: Limit | None = None
    ) -> list[CheckFinding]:
        """The finding of a check, or none if its effect is green.

        Args:
            check: a key of `LIMITS`.
            where: modality and item.
            effect: on the scale of the limits.
            value: what is told of it; None where that would tell a small cell.
            limit: another than the check's own.
        """
        limits = limit or LIMITS[check]
        grade = limits.grade(effect)
        if grade == "green":
            return []
        told = None if value is None else two_digits(value)
        return [CheckFinding(check, *where, told, two_digits(limits.reached(grade)), grade)]

    def compare(self, measure: Measure, *, floor: float) -> Comparison:
        """A measure at this hospital and at the others.

        Args:
            measure: which.
            floor: smallest standard deviation that is believed: where all others are equal, anything would be far off.
        """
        own, others = Moments.read(self.own, measure.key), Moments.read(self.others, measure.key)
        enough = self.rule.min_patients
        valid = (own.n >= enough) & (others.n >= enough)
        return Comparison(measure, own, others, floor, self.min_z(len(measure.items)), valid)


@dataclass(frozen=True)
class Comparison:
    """Means here and elsewhere.

    Attributes:
        measure: of what.
        own: of this hospital.
        others: of the others together.
        floor: smallest standard deviation.
        min_z: standard errors that rule out chance.
        valid: items that both have enough of.
    """

    measure: Measure
    own: Moments
    others: Moments
    floor: float
    min_z: float
    valid: Bool[np.ndarray, " item"]

    @property
    def difference(self) -> Float64[np.ndarray, " item"]:
        """Mean here less mean elsewhere."""
        return np.asarray(self.own.mean - self.others.mean)

    @property
    def in_sd(self) -> Float64[np.ndarray, " item"]:
        """The difference in the others' standard deviations."""
        return np.asarray(self.difference / np.maximum(self.others.sd, self.floor))

    @property
    def z(self) -> Float64[np.ndarray, " item"]:
        """The difference in standard errors, if this hospital's patients were drawn like the others'."""
        n_own, n_others = np.maximum(self.own.n, 1), np.maximum(self.others.n, 1)
        return np.asarray(self.in_sd * np.sqrt(n_own * n_others / (n_own + n_others)))

    @property
    def ratio(self) -> Float64[np.ndarray, " item"]:
        """Mean here by mean elsewhere; 1 where there is none elsewhere."""
        elsewhere = self.others.mean
        return np.where(elsewhere > 0, self.own.mean / np.where(elsewhere > 0, elsewhere, 1.0), 1.0)

    def limit(self, check: str, item: int) -> Limit:
        """The check's limit; without red where a single other hospital has this item: either could be wrong."""
        limit = LIMITS[check]
        return limit if np.rint(self.others.sites[item]) >= FEWEST_OTHERS else replace(limit, red=None)

    @property
    def differing(self) -> list[int]:
        """Items that differ by more than chance."""
        return [int(i) for i in np.flatnonzero(self.valid & (np.abs(self.z) >= self.min_z))]
