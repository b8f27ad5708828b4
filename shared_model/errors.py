"""The tree of errors: each says what, where, what was expected, what was got, and what to do.

HipfedError
  SettingsError     a run setting is unknown, out of range, or does not fit the study
  SchemaError       schema.toml is not a valid study description
  ExtensionError    a package that a study asks for is not installed, or cannot be used
  DataError         a hospital's folder breaks the data contract; carries every Problem found
  SiteError         the hospital's own machine is in the way; stays at the hospital
    KeyFileError      a key file is missing, readable by others, or not the key that it should be
  ProtocolError     a message is not one that the protocol allows
    SecureSumError    a step of a secure sum is not one that its rules allow
  EnrolmentError    a request, a certificate or a change of the registry is refused
    TamperedError     the registry is not what its own commands left
  StudyError        the run cannot go on (no quorum, nothing learned)
    LockedError     the run folder is another process's
  StudyFileError    STUDY.json is not a study's file, or its hash is of another content
  ApprovalError     the hospital has not approved the study
  SuppressedError   a value may not be released under the small-cell rule
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

MANY = 10
"""So many times a file may break one rule, and each of them has a line of its own."""
ROWS_SHOWN = 5


class HipfedError(Exception):
    """Anything that hipfed itself refuses; its text is meant for the user and needs no traceback."""

    @property
    def public_reason(self) -> str:
        """What a hospital may tell the coordinator: no patient's value, no path. The text itself, if not overridden."""
        return str(self)


class SettingsError(HipfedError):
    """A run setting is unknown, out of range, or does not fit the study."""


class SchemaError(HipfedError):
    """schema.toml is not a valid study description; the text may name paths."""

    @property
    def public_reason(self) -> str:
        """That it is so."""
        return "schema.toml: not a valid study at the hospital; see its worker log"


class ExtensionError(HipfedError):
    """A package that a study asks for is not installed, or cannot be used; the text may name paths."""

    @property
    def public_reason(self) -> str:
        """That it is so."""
        return "a package that the study asks for cannot be used at the hospital; see its worker log"


class SiteError(HipfedError):
    """The hospital's own machine is in the way (disk, permissions); the text names paths."""

    @property
    def public_reason(self) -> str:
        """That it is so."""
        return "the hospital's own machine is in the way; see its worker log"


class KeyFileError(SiteError):
    """A key file is missing, readable by others, or not the key that it should be; the text names paths."""


class ProtocolError(HipfedError):
    """A message is not one that the protocol allows."""


class SecureSumError(ProtocolError):
    """A step of a secure sum is not one that its rules allow; nothing was opened."""


class EnrolmentError(HipfedError):
    """A request, a certificate or a change of the registry is refused."""


class TamperedError(EnrolmentError):
    """The registry is not what its own commands left."""


class StudyError(HipfedError):
    """The run cannot go on."""


class LockedError(StudyError):
    """The run folder is another process's, or its file system has no locks."""


class StudyFileError(HipfedError):
    """STUDY.json is not a study's file, or its hash is of another content."""


class ApprovalError(HipfedError):
    """The hospital has not approved the study."""


class SuppressedError(HipfedError):
    """A value may not be released under the small-cell rule."""


@dataclass(frozen=True, order=True)
class Problem:
    """One broken rule of the data contract. It stays at the hospital: `detail` may quote a value.

    Attributes:
        file: path relative to the hospital's folder, e.g. `patients.csv`.
        row: line of the file as an editor shows it (the header is line 1; for Parquet, data row + 1); 0 = whole file.
        column: column name, or "" for the whole row or file.
        rule: kebab-case name of the rule, e.g. `unknown-level`; safe to send.
        detail: expected, got, and what to do.
        rows: how many rows it stands for, where those of one column and rule are not all listed.
    """

    file: str
    row: int
    column: str
    rule: str
    detail: str
    rows: int = 1

    def __str__(self) -> str:
        where = f"{self.file}" + (f", row {self.row}" if self.row else "") + (f", {self.column}" if self.column else "")
        return f"{where}: {self.rule}: {self.detail}"


def describe_problems(problems: Sequence[Problem]) -> list[str]:
    """A line for each problem; where a file breaks one rule more than `MANY` times, a line for each column instead."""
    times = Counter((problem.file, problem.rule) for problem in problems)
    groups: dict[object, list[Problem]] = defaultdict(list)
    for problem in problems:
        many = times[problem.file, problem.rule] > MANY
        groups[(problem.file, problem.rule, problem.column) if many else len(groups)].append(problem)
    return [_describe_group(group) for group in groups.values()]


def _describe_group(group: Sequence[Problem]) -> str:
    """The first problem, with the first rows of all in place of its own."""
    first = group[0]
    if len(group) == 1:
        return str(first)
    rows = ", ".join(str(problem.row) for problem in group[:ROWS_SHOWN])
    more = ", ..." if len(group) > ROWS_SHOWN else ""
    where = f"rows {rows}{more} ({sum(problem.rows for problem in group):,} in all)"
    return f"{', '.join(filter(None, (first.file, where, first.column)))}: {first.rule}: {first.detail}"


class DataError(HipfedError):
    """A hospital's folder breaks the data contract; its text has one line for many rows of one cause.

    Attributes:
        problems: every broken rule, sorted by file, row and column.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(describe_problems(self.problems)))

    @property
    def public_reason(self) -> str:
        """Rule names and counts only: what may be told to the coordinator."""
        counts = Counter(problem.rule for problem in self.problems)
        return "data check failed: " + ", ".join(f"{rule} ({n})" for rule, n in sorted(counts.items()))
