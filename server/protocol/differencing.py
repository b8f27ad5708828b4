"""Two groupings of the same patients by one number: what one shows and the other does not may be a few patients."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product


@dataclass(frozen=True)
class Band:
    """Patients whose number lies from `low` on and below `high`, shown with their count."""

    low: float
    high: float
    n: int


def reveal_few(first: Sequence[Band], second: Sequence[Band], *, fewest: int) -> bool:
    """True if subtracting bands of one grouping from neighbouring bands of the other leaves a group that is too small.

    Args:
        first: the shown bands of one, ascending; hidden ones are left out.
        second: those of the other.
        fewest: patients; nobody is no group.
    """
    return any(
        0 < whole.n - sum(band.n for band in inner if whole.low <= band.low and band.high <= whole.high) < fewest
        for outer, inner in ((first, second), (second, first))
        for whole in _unions(outer)
    )


def _unions(bands: Sequence[Band]) -> Iterator[Band]:
    """Every run of neighbouring bands as one."""
    for begin, end in product(range(len(bands)), repeat=2):
        run = bands[begin : end + 1]
        if run and all(left.high == right.low for left, right in pairwise(run)):
            yield Band(run[0].low, run[-1].high, sum(band.n for band in run))
