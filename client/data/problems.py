"""Collect every broken rule of a folder, so that a hospital mends its export once and not fault by fault."""

from collections import defaultdict
from collections.abc import Iterable

from client.data.look_alikes import escape_doubtful
from shared_model.errors import DataError, Problem

LISTED_PER_RULE = 100
LONGEST_QUOTE = 60


class ImageError(Exception):
    """One image cannot be used: `rule` names the broken rule, `detail` says expected, got and what to do."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule
        self.detail = detail


def quote(value: object) -> str:
    """A value for a message: on one line, what cannot be seen or told apart as code points, long text cut."""
    text = escape_doubtful(repr(str(value)))
    return text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 4] + "...'"


def fault(*, expected: str, got: str, remedy: str) -> str:
    """The text of a problem in the house form."""
    return f"expected {expected}, got {got}. {remedy}."


class ProblemLog:
    """Every broken rule found so far; lists at most `limit` rows per file, column and rule and counts the rest.

    A wrong unit breaks one rule on a million rows: the limit keeps the report readable.
    """

    def __init__(self, *, limit: int = LISTED_PER_RULE) -> None:
        self._limit = limit
        self._problems: list[Problem] = []
        self._seen: dict[tuple[str, str, str], int] = defaultdict(int)
        self._first_unlisted: dict[tuple[str, str, str], int] = {}
        self._empty: list[str] = []

    def __len__(self) -> int:
        return sum(self._seen.values())

    def add(self, file: str, *, rule: str, detail: str, row: int = 0, column: str = "") -> None:
        """Record one problem."""
        self.add_rows(file, rule=rule, column=column, faults=[(row, detail)], total=1)

    def add_rows(self, file: str, *, rule: str, column: str, faults: Iterable[tuple[int, str]], total: int) -> None:
        """Record one rule broken on many rows of one column.

        Args:
            file: path relative to the hospital's folder.
            rule: name of the rule.
            column: column name, or "" for the whole row.
            faults: (row, detail), rows ascending; read no further than the limit, so it may be lazy.
            total: number of faults in `faults`.
        """
        key = (file, column, rule)
        for row, detail in faults:
            if self._seen[key] >= self._limit:
                self._first_unlisted.setdefault(key, row)
                break
            self._seen[key] += 1
            self._problems.append(Problem(file=file, row=row, column=column, rule=rule, detail=detail))
            total -= 1
        self._seen[key] += total

    def note_empty(self, file: str) -> None:
        """Remember a table without rows: allowed, but a hospital may want to know."""
        self._empty.append(file)

    @property
    def empty_tables(self) -> tuple[str, ...]:
        """Tables without rows."""
        return tuple(self._empty)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The listed problems, then one line for each rule that has more."""
        rest = [
            Problem(
                file=file,
                row=row,
                column=column,
                rule=rule,
                detail=f"and {self._seen[file, column, rule] - self._limit:,} more from this row on.",
                rows=self._seen[file, column, rule] - self._limit,
            )
            for (file, column, rule), row in self._first_unlisted.items()
        ]
        return (*self._problems, *rest)

    def raise_if_any(self) -> None:
        """Refuse the folder if a rule is broken.

        Raises:
            DataError: at least one problem was recorded; carries all of them.
        """
        if self._problems:
            raise DataError(self.problems)
