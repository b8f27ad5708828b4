"""Agreement of two rankings (Kendall's tau-b, rank-biased overlap, overlap of the first K) and of many (Kendall's W).

A ranking is an array over the same items: 1 is the most important, tied items share the lowest of their ranks, and an
item that the ranking leaves out has rank infinity.

Why also by chance: two orders of the same few items overlap whatever they are. Of three items in reverse order the
rank-biased overlap is 0.86, and in random order 0.90, so the number alone reads as agreement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.stats import kendalltau, rankdata

PERSISTENCE = 0.9  # p of the rank-biased overlap: the first 10 ranks hold 86 % of the weight


def rank_scores(scores: Float64[np.ndarray, "*draws item"]) -> Float64[np.ndarray, "*draws item"]:
    """Ranking by score, larger first; NaN leaves an item out."""
    ranks = np.asarray(rankdata(-scores, method="min", axis=-1, nan_policy="omit"), dtype=np.float64)
    return np.where(np.isnan(scores), np.inf, ranks)


@dataclass(frozen=True)
class Overlap:
    """What two rankings share down to each depth d = 1 .. length of the longer one.

    If t items are tied at rank r, all of them are at rank r, so a prefix may hold more than d items (Webber, Moffat and
    Zobel 2010, ACM Trans Inf Syst 28:20, section on ties).

    Attributes:
        common: items with rank <= d in both.
        first: items with rank <= d in the first ranking.
        second: same, in the second.
        shorter: items of the shorter ranking.
    """

    common: Float64[np.ndarray, "*draws depth"]
    first: Float64[np.ndarray, "depth"]
    second: Float64[np.ndarray, "*draws depth"]
    shorter: int

    @classmethod
    def of(cls, first: Float64[np.ndarray, "item"], second: Float64[np.ndarray, "*draws item"]) -> Overlap:
        """Overlap of a ranking with another, or with each of many that rank the same items.

        Raises:
            ValueError: a ranking is empty.
        """
        lengths = {int(np.isfinite(first).sum()), *np.isfinite(second).sum(axis=-1).ravel().tolist()}
        if not min(lengths):
            raise ValueError("overlap at rankings: expected items in both, got an empty ranking.")
        depths = max(lengths)
        return cls(
            common=_sizes(np.maximum(first, second), depths),
            first=_sizes(first, depths),
            second=_sizes(second, depths),
            shorter=min(lengths),
        )

    def by_chance(self, n_items: int) -> Overlap:
        """Expected overlap if the second ranking, of all `n_items` items, were in random order."""
        return Overlap(self.first * self.second / n_items, self.first, self.second, self.shorter)

    @property
    def agreement(self) -> Float64[np.ndarray, "*draws depth"]:
        """Part of the items that the prefixes share, 2 |S n T| / (|S| + |T|), 0 to 1 (there, on ties)."""
        return np.asarray(2 * self.common / (self.first + self.second))

    def rank_biased(self, p: float = PERSISTENCE) -> Float64[np.ndarray, "*draws"]:
        """Extrapolated rank-biased overlap RBO_EXT, 0 to 1 (eq. 32 there, written as one agreement per depth).

        With s and l items, S the shorter ranking, and A_d the agreement,
            RBO_EXT = (1 - p) / p sum_{d=1}^{l} A_d p^d + A_l p^l,
            A_d = 2 (|S n L| + (d - s) A_s) / (d + |L|) beyond d = s: further items of S would agree as those seen do.
        Without ties |L| = d and this is eq. 32; with ties it is the variant `w` of Corsi and Urbano 2024 (SIGIR).

        Args:
            p: chance to read on after each rank, 0 < p < 1.
        """
        depth = np.arange(1, len(self.first) + 1)
        beyond = np.maximum(depth - self.shorter, 0)
        last_seen = self.agreement[..., self.shorter - 1, None]
        agreement = 2 * (self.common + beyond * last_seen) / (self.first + self.second + beyond)
        weighted = (1 - p) / p * (agreement * p**depth).sum(axis=-1)
        return np.asarray(weighted + agreement[..., -1] * p ** len(depth))

    def at_top(self, k: int) -> Float64[np.ndarray, "*draws"]:
        """Agreement of the first k; with ties more items may be among them."""
        return np.asarray(self.agreement[..., k - 1])


def _sizes(ranks: Float64[np.ndarray, "*draws item"], depths: int) -> Float64[np.ndarray, "*draws depth"]:
    return np.stack([(ranks <= d).sum(axis=-1) for d in range(1, depths + 1)], axis=-1).astype(np.float64)


def tau_b(
    first: Float64[np.ndarray, "item"], second: Float64[np.ndarray, "*draws item"]
) -> Float64[np.ndarray, "*draws"]:
    """Kendall's tau-b over the items that both rank, -1 to 1; NaN where all of them are tied in one ranking.

    Source: Kendall 1945 (Biometrika 33:239), by `scipy.stats.kendalltau`.

    Args:
        first: a ranking.
        second: a ranking, or many that rank the same items.
    """
    rows = second.reshape(-1, len(first))
    both = np.isfinite(first) & np.isfinite(rows).all(axis=0)
    orders, place = np.unique(rows[:, both], axis=0, return_inverse=True)  # of few items, many draws are the same
    values = [kendalltau(first[both], order, method="asymptotic").statistic for order in orders]
    return np.asarray(values, dtype=np.float64)[place].reshape(second.shape[:-1])


def kendall_w(scores: Float64[np.ndarray, "expert item"]) -> float:
    """Kendall's coefficient of concordance with the correction for ties, 0 to 1; NaN if every expert ties all items.

    W = 12 S / (m^2 (n^3 - n) - m sum (t^3 - t)), with S the sum of squares of the items' rank sums about their mean and
    t the sizes of the tied groups (Kendall and Gibbons 1990, Rank Correlation Methods, chapter 6).

    Args:
        scores: of m experts for n items, larger is more important, none missing.
    """
    m, n = scores.shape
    sums = np.asarray(rankdata(-scores, axis=1)).sum(axis=0)
    squares = float(np.square(sums - sums.mean()).sum())
    ties = sum(int(t) ** 3 - int(t) for row in scores for t in np.unique(row, return_counts=True)[1])
    largest = m**2 * (n**3 - n) - m * ties
    return 12 * squares / largest if largest else float("nan")
