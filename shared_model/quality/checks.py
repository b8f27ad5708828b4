"""Data quality: what is checked, where amber and red begin, and the row that a hospital releases.

Red is what almost surely is a fault and would spoil the model; amber is to be looked at. A finding must clear two
hurdles: an effect that matters (`LIMITS`), and more than chance (`critical_z`, `critical_p`: Bonferroni over all items
of the measure at all hospitals). The effect's hurdle also protects the innocent: where a fault shifts a share p of the
other hospitals' patients, the distance to their mean stays below sqrt(p / (1 - p)) of their standard deviations, since
the fault widens these too. So a limit of 1 accuses no sound hospital while the faulty ones hold less than half of the
others' patients, and `UNIT_SHIFT_SD` none below three quarters.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from shared_model.config import Settings
from shared_model.errors import ProtocolError
from shared_model.privacy.suppression import suppressed_row
from shared_model.schema import Schema

Grade = Literal["green", "amber", "red"]
GRADES: tuple[Grade, ...] = ("green", "amber", "red")


@dataclass(frozen=True)
class Limit:
    """Where a check turns amber and red.

    Attributes:
        number: what a finding's value is.
        amber: from here on amber.
        red: from here on red; None where it never is.
        by_outcome: whether the number compares patients with and without the outcome.
    """

    number: str
    amber: float
    red: float | None = None
    by_outcome: bool = False

    def grade(self, effect: float) -> Grade:
        """The grade of an effect on the scale of the limits (a factor below 1 is given as its inverse)."""
        if self.red is not None and effect >= self.red:
            return "red"
        return "amber" if effect >= self.amber else "green"

    def reached(self, grade: Grade) -> float:
        """The limit that a finding of this grade has reached."""
        return self.red if grade == "red" and self.red is not None else self.amber


UNIT_SHIFT, LEVEL_SHIFT, DOSE_SHIFT = "unit-shift", "level-shift", "dose-shift"
MISSING_VALUES, MISSING_MODALITY, MISSING_BY_OUTCOME = "missing-values", "missing-modality", "missing-by-outcome"
FLAT_LINES, SAMPLING_INTERVAL, DURATION = "flat-lines", "sampling-interval", "duration"
BRIGHTNESS, CONTRAST, SHARPNESS, SATURATION = "brightness", "contrast", "sharpness", "saturation"
BLANK, INVERTED, TURNED = "blank", "inverted", "turned"
SHORT_CUT, CORRELATED, PREVALENCE = "short-cut", "correlated", "prevalence"

LIMITS: Mapping[str, Limit] = {
    UNIT_SHIFT: Limit("geometric mean by that of the others", 1.5, 1.5),
    LEVEL_SHIFT: Limit("difference of means from the others, in their standard deviations", 1.0),
    # Hospitals give 1 g or 2 g of the same drug; milligrams for grams is a factor of 1000.
    DOSE_SHIFT: Limit("geometric mean by that of the others", 2.0, 5.0),
    MISSING_VALUES: Limit("share that is measured by that of the others", 4.0),
    MISSING_MODALITY: Limit("share of patients who have it by that of the others", 10.0),
    MISSING_BY_OUTCOME: Limit("share that lacks it among events less that among the others", 0.2, by_outcome=True),
    FLAT_LINES: Limit("share of successive values that are equal less that of the others", 0.25, 0.5),
    SAMPLING_INTERVAL: Limit("geometric mean of the interval by that of the others", 1.5, 2.0),
    DURATION: Limit("geometric mean from first to last value by that of the others", 2.0, 3.0),
    BRIGHTNESS: Limit("difference of means from the others, in their standard deviations", 1.0),
    CONTRAST: Limit("difference of means from the others, in their standard deviations", 1.0),
    SHARPNESS: Limit("difference of means from the others, in their standard deviations", 1.0),
    SATURATION: Limit("share of white pixels less that of the others", 0.1),
    BLANK: Limit("share of images without content", 0.05, 0.2),
    INVERTED: Limit("share of images with black and white exchanged", 0.05, 0.2),
    TURNED: Limit("share of images that are turned or upside down", 0.05, 0.2),
    SHORT_CUT: Limit("AUC for the outcome of one region's mean gray", 0.85, 0.85, by_outcome=True),
    CORRELATED: Limit("correlation of two features", 0.9),
    # An outcome column that codes survival as 1 turns 8 % into 92 %: odds ratio 130.
    PREVALENCE: Limit("odds of the outcome by those of the others", 2.0, 50.0, by_outcome=True),
}

UNIT_SHIFT_SD = 1.75  # a unit shift moves the mean logarithm by at least so many of the others' standard deviations
DOSE_SHIFT_SD = 1.0  # the same for a dose shift: half of the hospitals may give one dose and half another
INTERVAL_SD = 1.0  # the same for the sampling interval and the duration
FLAT_SHARE = 0.8  # red flat lines have at least this share of equal successive values
# Of what is otherwise compared with others.
ALONE: Mapping[str, Limit] = {
    FLAT_LINES: Limit("share of successive values that are equal", 0.75, 0.95),
    SATURATION: Limit("share of white pixels", 0.25),
}
SHORT_CUT_MARGIN = 0.15  # a region is red if its AUC is so much larger than at the others: pathology shows everywhere
CORRELATED_ELSEWHERE = 0.75  # a pair so strongly correlated at the others too belongs to the study, not to a hospital
FEWEST_PAIRS = 30  # patients with both values
FEWEST_IMAGES = 3  # a share of faulty images is no finding before
FEWEST_OTHERS = 2  # of two hospitals that differ nobody can say which is wrong: red takes two others that agree
ALPHA = 0.001  # chance that a measure has any finding at any hospital where there is nothing
REGION_Z = 3.3  # an image's region must differ from the others' too, by so many standard errors
REGION_EVENTS = 8  # fewest events and non-events: of five deaths, real pathology may separate all by chance
PATHOLOGY_AUC = 0.65  # what disease may show in one region, where no other hospital tells


def critical_z(n_tests: int) -> float:
    """Two-sided normal quantile at `ALPHA` over all tests of a measure.

    >>> round(critical_z(1), 3), round(critical_z(500), 3)
    (3.291, 4.892)
    """
    return -NormalDist().inv_cdf(critical_p(n_tests) / 2)


def critical_p(n_tests: int) -> float:
    """Largest two-sided p value that counts."""
    return ALPHA / max(n_tests, 1)


def two_digits(value: float) -> float:
    """A number with two significant digits: all that leaves a hospital.

    >>> two_digits(0.011309), two_digits(-14.51)
    (0.011, -15.0)
    """
    return float(f"{value:.2g}")


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class CheckFinding:
    """One check that is not green.

    Attributes:
        check: a key of `LIMITS`.
        modality: of the study; "" for the outcome.
        item: column, channel, region or pair; "" for the whole modality.
        value: two significant digits, as the check's `number` says; None where it would tell a small cell.
        limit: the effect from which on the grade holds.
        grade: amber or red.
    """

    check: str
    modality: str
    item: str
    value: float | None
    limit: float
    grade: Literal["amber", "red"]

    def __str__(self) -> str:
        value = "" if self.value is None else f" {self.value:g}"
        where = ", ".join(part for part in (self.modality, self.item) if part)
        return f"{self.check}{' of ' + where if where else ''}{value} (limit {self.limit:g})"


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class QualityReport:
    """A hospital's own row.

    Attributes:
        judged: how many numbers were judged.
        by_outcome: whether those that need the outcome were among them.
        findings: amber and red ones, red first.
    """

    judged: int
    by_outcome: bool
    findings: tuple[CheckFinding, ...]

    @property
    def grade(self) -> Grade:
        """The worst grade of the findings."""
        return worst(finding.grade for finding in self.findings)

    def to_row(self) -> dict[str, Any]:
        """As JSON carries it."""
        return {**asdict(self), "findings": [asdict(finding) for finding in self.findings]}


_REPORT = TypeAdapter(QualityReport)


def worst(grades: Iterable[Grade]) -> Grade:
    """The worst of some grades; green if there are none."""
    return max(grades, key=GRADES.index, default="green")


def sort_findings(findings: Iterable[CheckFinding]) -> tuple[CheckFinding, ...]:
    """Red first, then in the order of `LIMITS`, modality and item."""
    order = list(LIMITS)
    return tuple(
        sorted(findings, key=lambda f: (-GRADES.index(f.grade), order.index(f.check), f.modality, f.item, f.limit))
    )


def parse_report(text: str, schema: Schema) -> QualityReport | None:
    """A hospital's row from JSON; None for the suppressed row.

    Raises:
        ProtocolError: not a row of known checks and modalities with coarse numbers.
    """
    if text == json.dumps(suppressed_row()):
        return None
    try:
        report: QualityReport = _REPORT.validate_json(text)
    except ValidationError as error:
        raise ProtocolError("quality row: expected the agreed fields, got something else.") from error
    check_report(report, schema.modalities)
    return report


def check_report(report: QualityReport, modalities: Collection[str]) -> None:
    """What both sides hold a row to.

    Raises:
        ProtocolError: an unknown check or modality, a long text, or a number that is not coarse.
    """
    for finding in report.findings:
        if finding.check not in LIMITS or finding.modality not in {"", *modalities}:
            raise ProtocolError("quality row: expected known checks and modalities, got another.")
        if len(finding.item) > 200 or not finding.item.isprintable():
            raise ProtocolError("quality row: expected names of at most 200 printable characters, got others.")
        for number in (finding.value, finding.limit):
            if number is not None and not (np.isfinite(number) and number == two_digits(number)):
                raise ProtocolError("quality row: expected numbers of two significant digits, got others.")


def accepted_names(settings: Settings) -> frozenset[str]:
    """Hospitals that take part even if they are red."""
    return frozenset(name.strip() for name in settings.accept_red.split(",") if name.strip())
