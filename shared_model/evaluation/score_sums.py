"""`ScoreSums`: statistics of a hospital's scores that add up over hospitals.

Why sums: the AUC of all patients is not an average of the hospitals' AUCs, and a small hospital may have none.
Histograms of the logit per outcome class give what needs patients of different hospitals (AUC, average precision,
calibration); Brier score, log loss and the pairs of patients within a hospital are summed exactly. One site's histogram
is finer than the disclosure rules allow for a release, so it leaves a hospital through the secure sum only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Real

from shared_model.errors import ProtocolError, StudyError

LOGIT_LIMIT = 10.0
N_BINS = 1000
EDGES = np.linspace(-LOGIT_LIMIT, LOGIT_LIMIT, N_BINS + 1)
CENTRES = (EDGES[:-1] + EDGES[1:]) / 2
SCORE_COUNTS = "score-counts"
SCORE_SUMS = "score-sums"

_REMEDY = "Check that every site runs the same version of hipfed."


@dataclass(frozen=True)
class Concordance:
    """Pairs of an event and a non-event, and how many of them a score ranks rightly.

    Attributes:
        concordant: pairs in which the event has the higher score; a tie counts half. The AUC is concordant / pairs.
        pairs: all of them.
        variance: DeLong's variance of concordant. With fewer than 2 events or 2 non-events it cannot be estimated and
            is the largest it can be, a quarter of variance_bound.
        variance_bound: pairs^2 / min(events, non-events); the true variance is at most A (1 - A) times this, whatever
            the distributions of the score (Birnbaum and Klose 1957, Ann Math Stat 28:933).
    """

    concordant: float
    pairs: float
    variance: float
    variance_bound: float

    @classmethod
    def from_counts(cls, counts: Int64[np.ndarray, "2 value"]) -> Concordance:
        """The pairs among patients counted per outcome class (row) and score, ascending (column).

        DeLong: var(A) = S10 / n1 + S01 / n0, with S10 the sample variance over events of wins / n0 (the share of
        non-events below), S01 that over non-events of losses / n1 (the share of events above). Times (n1 n0)^2 this is
        n1 var(wins) + n0 var(losses).

        Source: DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837.
        """
        others, events = counts
        n_others, n_events = int(others.sum()), int(events.sum())
        wins = np.cumsum(others) - others / 2  # of an event with this score
        losses = n_events - np.cumsum(events) + events / 2  # of a non-event with this score
        pairs = float(n_others * n_events)
        smaller = min(n_others, n_events)
        bound = pairs**2 / max(smaller, 1)
        variance = bound / 4
        if smaller >= 2:
            variance = n_events * _sample_variance(wins, events) + n_others * _sample_variance(losses, others)
        return cls(concordant=float(wins @ events), pairs=pairs, variance=variance, variance_bound=bound)


@dataclass(frozen=True, eq=False)
class ScoreSums:
    """What a group of patients adds to an evaluation; the sums of two groups are the sums of their union.

    Attributes:
        counts: patients per outcome class (row) and bin of the logit (column); logits beyond the limits are in the
            outer bins.
        n: patients.
        events: patients with outcome 1.
        brier_sum: sum of (probability - outcome)^2.
        log_loss_sum: sum of -log likelihood, nats.
        concordant: sum over hospitals of their `Concordance`, from the scores themselves, not from the bins.
        pairs: likewise.
        concordant_variance: likewise.
        variance_bound: likewise.
    """

    counts: Int64[np.ndarray, "2 1000"]
    n: float
    events: float
    brier_sum: float
    log_loss_sum: float
    concordant: float
    pairs: float
    concordant_variance: float
    variance_bound: float

    @classmethod
    def zero(cls) -> ScoreSums:
        """The sums of no patients."""
        return cls(np.zeros((2, N_BINS), dtype=np.int64), *[0.0] * len(_SUM_NAMES))

    @classmethod
    def from_scores(cls, logit: Float[np.ndarray, "patient"], outcome: Real[np.ndarray, "patient"]) -> ScoreSums:
        """The sums of one hospital's patients.

        Args:
            logit: predicted log odds; the probability is its sigmoid.
            outcome: 0 or 1.

        Raises:
            StudyError: a logit is NaN or infinite.
            ValueError: the arrays differ in length, or an outcome is neither 0 nor 1.
        """
        event = _events(logit, outcome)
        score = logit.astype(np.float64)
        bins = np.clip(np.searchsorted(EDGES, score, side="right") - 1, 0, N_BINS - 1)
        within = Concordance.from_counts(_counts_by_score(score, event))
        return cls(
            counts=_counts(bins, event, width=N_BINS),
            n=float(score.size),
            events=float(event.sum()),
            brier_sum=float(np.sum((sigmoid(score) - event) ** 2)),
            log_loss_sum=float(np.sum(np.logaddexp(0.0, np.where(event, -score, score)))),
            concordant=within.concordant,
            pairs=within.pairs,
            concordant_variance=within.variance,
            variance_bound=within.variance_bound,
        )

    def __add__(self, other: ScoreSums) -> ScoreSums:
        sums = [getattr(self, name) + getattr(other, name) for name in _SUM_NAMES]
        return ScoreSums(self.counts + other.counts, *sums)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What goes on the wire: score-counts, int64 (2, 1000), and score-sums, float64 (8,)."""
        sums = np.array([getattr(self, name) for name in _SUM_NAMES], dtype=np.float64)
        return {SCORE_COUNTS: self.counts, SCORE_SUMS: sums}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ScoreSums:
        """The sums in a message; the inverse of `to_arrays`.

        Raises:
            ProtocolError: names, shapes or dtypes differ, a value is negative or not finite, or the parts contradict
                each other.
        """
        if set(arrays) != {SCORE_COUNTS, SCORE_SUMS}:
            raise ProtocolError(
                f"arrays at evaluation message: expected {SCORE_COUNTS} and {SCORE_SUMS}, "
                f"got {', '.join(sorted(arrays)) or 'none'}. {_REMEDY}"
            )
        _check_array(arrays[SCORE_COUNTS], name=SCORE_COUNTS, shape=(2, N_BINS), dtype=np.dtype(np.int64))
        _check_array(arrays[SCORE_SUMS], name=SCORE_SUMS, shape=(len(_SUM_NAMES),), dtype=np.dtype(np.float64))
        sums = cls(arrays[SCORE_COUNTS].copy(), *arrays[SCORE_SUMS].tolist())
        _check_consistent(sums)
        return sums


_SUM_NAMES = tuple(field.name for field in fields(ScoreSums) if field.name != "counts")


def exact_auc(logit: Float[np.ndarray, "patient"], outcome: Real[np.ndarray, "patient"]) -> float | None:
    """AUC of the scores themselves (rank based, ties half); None where an outcome class is empty.

    Raises:
        StudyError: a logit is NaN or infinite.
        ValueError: the arrays differ in length, or an outcome is neither 0 nor 1.
    """
    found = Concordance.from_counts(_counts_by_score(logit, _events(logit, outcome)))
    return found.concordant / found.pairs if found.pairs else None


def sigmoid(logit: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """Probability of log odds; never overflows."""
    return 0.5 * (1.0 + np.tanh(0.5 * logit))


def _events(logit: Float[np.ndarray, "patient"], outcome: Real[np.ndarray, "patient"]) -> Bool[np.ndarray, "patient"]:
    if logit.ndim != 1 or logit.shape != outcome.shape:
        raise ValueError(
            f"scores: expected one logit and one outcome a patient, got {logit.shape} and {outcome.shape}."
        )
    if not np.isfinite(logit).all():
        raise StudyError(
            "logits at evaluation: expected finite numbers, got NaN or infinity. "
            "The model has diverged: lower the learning rate, or resume from an earlier round."
        )
    if not np.isin(outcome, (0, 1)).all():
        raise ValueError("outcome at evaluation: expected 0 or 1, got another value. Run the data check.")
    return np.asarray(outcome == 1)


def _counts(
    column: Int64[np.ndarray, "patient"], event: Bool[np.ndarray, "patient"], *, width: int
) -> Int64[np.ndarray, "2 column"]:
    return np.stack([np.bincount(column[event == row], minlength=width) for row in (False, True)])


def _counts_by_score(
    score: Float[np.ndarray, "patient"], event: Bool[np.ndarray, "patient"]
) -> Int64[np.ndarray, "2 value"]:
    values, column = np.unique(score, return_inverse=True)
    return _counts(column, event, width=values.size)


def _sample_variance(values: Float64[np.ndarray, "value"], weights: Int64[np.ndarray, "value"]) -> float:
    n = int(weights.sum())
    return float(weights @ (values - (weights @ values) / n) ** 2) / (n - 1)


def _check_array(array: np.ndarray, *, name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
    if array.shape != shape or array.dtype != dtype:
        raise ProtocolError(
            f"{name} at evaluation message: expected {dtype} of shape {shape}, "
            f"got {array.dtype} of shape {array.shape}. {_REMEDY}"
        )
    if not np.isfinite(array).all() or (array < 0).any():
        raise ProtocolError(f"{name} at evaluation message: expected finite numbers from 0, got another. {_REMEDY}")


def _check_consistent(sums: ScoreSums) -> None:
    slack = 1e-6 * (1 + sums.n)  # a secure sum rounds reals to fixed point
    others, events = sums.counts.sum(axis=1, dtype=np.float64)  # floats do not wrap around
    rules = {
        "n below 2^53": sums.n < 2**53,
        "score-counts that add up to n": others + events == sums.n,
        "row 1 of score-counts to add up to events": events == sums.events,
        "brier_sum of at most n": sums.brier_sum <= sums.n + slack,
        "pairs of at most events times non-events": sums.pairs <= events * others,
        "concordant of at most pairs": sums.concordant <= sums.pairs,
        "variance_bound of at most pairs squared": sums.variance_bound <= sums.pairs**2 + slack,
        "concordant_variance of at most variance_bound": sums.concordant_variance <= sums.variance_bound + slack,
    }
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        # the values are left out: this text reaches logs, and the sums may be of a small group
        raise ProtocolError(f"{SCORE_SUMS} at evaluation message: expected {'; '.join(broken)}, got other. {_REMEDY}")
