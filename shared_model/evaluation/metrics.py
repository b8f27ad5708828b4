"""Metrics and curves of all patients, from the `ScoreSums` that hospitals send.

How exact: Brier score, log loss and the AUC within a hospital are exact, the rest is exact for logits rounded to bins
of 0.02 between -10 and 10. Largest errors in 150 random cohorts per setting, in which the logits of non-events have a
standard deviation of 0.6, 1 or 2:
- of the paper's size (1,669 patients, 7.8 % events): AUC 0.0006 (3 % of its standard error), average precision 0.008,
  calibration slope 0.2 %, intercept 0.0007;
- 130 patients, 7.8 % events: AUC 0.006 (12 % of its standard error), average precision 0.08, slope 1.3 %, intercept
  0.003.
The AUC is never off by more than half the share of pairs whose logits share a bin. Sums of the logits per bin would add
nothing that matters to the slope, so they are not sent.

The curves may be printed: the four of them cut the patients at the same scores, by default with at least 10 patients
between two cuts, so that even their differences say no more than one histogram with n / 10 bins would. The
coordinator's own metrics use every bin.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float64, Int64

from shared_model.evaluation.metric_intervals import (
    Z_95,
    Interval,
    average_precision_interval,
    mean_interval,
    wald_interval,
)
from shared_model.evaluation.score_sums import (
    CENTRES,
    EDGES,
    LOGIT_LIMIT,
    N_BINS,
    Concordance,
    ScoreSums,
    exact_auc,
    sigmoid,
)
from shared_model.privacy.suppression import PATIENTS_PER_BIN, histogram_bins_allowed

__all__ = [
    "N_BINS",
    "Metrics",
    "ScoreSums",
    "calibration_curve",
    "decision_curve",
    "exact_auc",
    "precision_recall_curve",
    "roc_curve",
    "summarise",
]

LOWEST_THRESHOLD, HIGHEST_THRESHOLD = 0.01, 0.5  # of the decision curve

# Of a patient in each outcome class (row) and bin.
_SQUARED_ERROR = np.square(np.stack([sigmoid(CENTRES), 1 - sigmoid(CENTRES)]))
_LOG_LOSS = np.logaddexp(0.0, np.stack([CENTRES, -CENTRES]))


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """How good the model is on one group of patients; None where undefined (no patients, or one outcome class only).

    Intervals with a default are also None in run folders that a version before protocol 5 wrote.

    Attributes:
        n: patients.
        events: patients with outcome 1.
        auc: share of pairs of an event and a non-event in which the event has the higher logit; a tie counts half.
        auc_ci: its 95 % interval; it takes patients as independent.
        auc_within: the same over pairs within a hospital: not flattered by hospitals that differ in prevalence.
        auc_within_ci: its 95 % interval.
        auprc: average precision, as scikit-learn defines it, of logits rounded to their bin.
        auprc_ci: its 95 % interval; for this and the intervals below see `metric_intervals`.
        brier: mean of (probability - outcome)^2.
        brier_ci: its 95 % interval.
        log_loss: mean of -log likelihood, nats.
        log_loss_ci: its 95 % interval.
        calibration_slope: of a logistic regression of the outcome on the logit; best 1, below 1 the risks are too
            extreme. Also None where a threshold separates the classes: then no finite slope exists.
        calibration_slope_ci: its 95 % interval.
        calibration_intercept: calibration in the large, the intercept with the slope fixed at 1; best 0, above 0 the
            risks are too low.
        calibration_intercept_ci: its 95 % interval.
        ece: expected calibration error: mean of |observed - predicted| over 10 groups of equal size, formed as in
            `calibration_curve`, weighted by their size.
    """

    n: int
    events: int
    auc: float | None
    auc_ci: Interval | None
    auc_within: float | None
    auc_within_ci: Interval | None
    auprc: float | None
    auprc_ci: Interval | None = None
    brier: float | None
    brier_ci: Interval | None = None
    log_loss: float | None
    log_loss_ci: Interval | None = None
    calibration_slope: float | None
    calibration_slope_ci: Interval | None = None
    calibration_intercept: float | None
    calibration_intercept_ci: Interval | None = None
    ece: float | None

    def to_dict(self) -> dict[str, int | float | list[float] | None]:
        """The attributes as JSON values; an interval is a list of two numbers."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def summarise(sums: ScoreSums) -> Metrics:
    """The metrics of all patients in the sums.

    Source: DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837 (variance of the AUC); Van Calster et al. 2019,
    BMC Med 17:230 (calibration); for the intervals see `_auc_and_interval` and `metric_intervals`.
    """
    others, events = (int(row) for row in sums.counts.sum(axis=1))
    n, has_both = others + events, bool(others and events)
    auc, auc_ci = _auc_and_interval(Concordance.from_counts(sums.counts))
    auc_within, auc_within_ci = _auc_and_interval(
        Concordance(sums.concordant, sums.pairs, sums.concordant_variance, sums.variance_bound)
    )
    auprc = _average_precision(sums) if has_both else None
    brier, log_loss = (total / n if n else None for total in (sums.brier_sum, sums.log_loss_sum))
    slope, slope_ci = _calibration_slope(sums.counts)
    intercept, intercept_ci = _calibration_in_the_large(sums.counts) if has_both else (None, None)
    return Metrics(
        n=n,
        events=events,
        auc=auc,
        auc_ci=auc_ci,
        auc_within=auc_within,
        auc_within_ci=auc_within_ci,
        auprc=auprc,
        auprc_ci=None if auprc is None else average_precision_interval(auprc, events=events),
        brier=brier,
        brier_ci=mean_interval(brier, sums.counts, _SQUARED_ERROR) if brier is not None and has_both else None,
        log_loss=log_loss,
        log_loss_ci=mean_interval(log_loss, sums.counts, _LOG_LOSS) if log_loss is not None and has_both else None,
        calibration_slope=slope,
        calibration_slope_ci=slope_ci,
        calibration_intercept=intercept,
        calibration_intercept_ci=intercept_ci,
        ece=_expected_calibration_error(sums) if n else None,
    )


def roc_curve(sums: ScoreSums, *, min_patients: int = PATIENTS_PER_BIN) -> dict[str, list[float]]:
    """The ROC curve, from the highest threshold down, after (0, 0) at threshold 1.

    Args:
        sums: the patients.
        min_patients: fewest patients between two points; 1 = a point per bin that holds patients.

    Returns:
        Lists of equal length: false_positive_rate, true_positive_rate, threshold (a probability: positive is at or
        above). Empty where an outcome class is empty.
    """
    others, events = sums.counts.sum(axis=1)
    if not (others and events):
        return {"false_positive_rate": [], "true_positive_rate": [], "threshold": []}
    false_positives, true_positives, threshold = _operating_points(sums, min_patients=min_patients)
    return {
        "false_positive_rate": [0.0, *(false_positives / others).tolist()],
        "true_positive_rate": [0.0, *(true_positives / events).tolist()],
        "threshold": [1.0, *threshold.tolist()],
    }


def precision_recall_curve(sums: ScoreSums, *, min_patients: int = PATIENTS_PER_BIN) -> dict[str, list[float]]:
    """Precision and recall, from the highest threshold down.

    Args:
        sums: the patients.
        min_patients: fewest patients between two points; 1 = a point per bin that holds patients.

    Returns:
        Lists of equal length: recall, precision, threshold (a probability: positive is at or above). Empty where an
        outcome class is empty.
    """
    others, events = sums.counts.sum(axis=1)
    if not (others and events):
        return {"recall": [], "precision": [], "threshold": []}
    false_positives, true_positives, threshold = _operating_points(sums, min_patients=min_patients)
    return {
        "recall": (true_positives / events).tolist(),
        "precision": (true_positives / (true_positives + false_positives)).tolist(),
        "threshold": threshold.tolist(),
    }


def calibration_curve(
    sums: ScoreSums, bins: int = 10, *, min_patients: int = PATIENTS_PER_BIN
) -> dict[str, list[float]]:
    """Predicted and observed risk in groups of about equal size, from low to high risk.

    What lies between two cuts is never split: it goes whole to the group in which the middle of its patients lies. So
    groups differ in size, and there are fewer where many patients share a score.

    Args:
        sums: the patients.
        bins: most groups; there are never more than `histogram_bins_allowed`, one per 10 patients.
        min_patients: fewest patients between two cuts.

    Returns:
        Lists of equal length: predicted (mean probability), observed (share of events), n (patients). Empty with fewer
        than 10 patients.
    """
    allowed = min(bins, histogram_bins_allowed(int(sums.counts.sum())))
    cuts = _cuts(sums, min_patients=min_patients)
    predicted, events, n = _groups_of_equal_size(sums.counts, cuts, bins=allowed)
    return {"predicted": (predicted / n).tolist(), "observed": (events / n).tolist(), "n": n.tolist()}


def decision_curve(sums: ScoreSums, *, min_patients: int = PATIENTS_PER_BIN) -> dict[str, list[float]]:
    """Net benefit of three policies: treat whom the model puts at or above the threshold, treat all, treat none.

    TP/n - FP/n * threshold / (1 - threshold), in true positives per patient; exact, as thresholds are cuts.

    Args:
        sums: the patients.
        min_patients: fewest patients between two thresholds, below the first and above the last.

    Returns:
        Lists of equal length: threshold (from 1 % to 50 %, ascending), model, treat_all, treat_none; empty without
        patients.

    Source: Vickers and Elkin 2006, Med Decis Making 26:565.
    """
    others, events = (int(row) for row in sums.counts.sum(axis=1))
    cuts = _cuts(sums, min_patients=min_patients)
    threshold = sigmoid(EDGES[cuts])
    kept = (threshold >= LOWEST_THRESHOLD) & (threshold <= HIGHEST_THRESHOLD)
    threshold, n = threshold[kept], max(others + events, 1)
    below = np.concatenate([np.zeros((2, 1), dtype=np.int64), np.cumsum(sums.counts, axis=1)], axis=1)[:, cuts[kept]]
    odds = threshold / (1 - threshold)
    return {
        "threshold": threshold.tolist(),
        "model": ((events - below[1] - odds * (others - below[0])) / n).tolist(),
        "treat_all": ((events - odds * others) / n).tolist(),
        "treat_none": [0.0] * threshold.size,
    }


def _auc_and_interval(found: Concordance) -> tuple[float | None, Interval | None]:
    """AUC with its 95 % interval on the scale log(A / (1 - A)).

    That scale keeps the interval between 0 and 1 and covers better than the plain one where the AUC is high or events
    are few. DeLong's variance is 0 where the classes are separated or all scores tie, and in a very small group may
    exceed what any score can have. The interval is then Wilson's for A as a share of pairs^2 / variance_bound trials
    (in one hospital: min(events, non-events)): wide, where [1, 1] would feign certainty.

    Measured coverage for true AUCs of 0.64, 0.78 and 0.92: 94-96 % with 130 events, 93-95 % with 30, 89-94 % with 10:
    the interval of a small hospital is somewhat too narrow. For auc_within of 5 to 20 hospitals: 94-98 %.

    Source: Qin and Hotilovac 2008, Stat Methods Med Res 17:207 (scale); Wilson 1927, J Am Stat Assoc 22:209; Birnbaum
    and Klose 1957, Ann Math Stat 28:933 (largest variance).
    """
    if not found.pairs:
        return None, None
    auc = found.concordant / found.pairs
    spread = auc * (1 - auc)
    if 0 < found.variance < spread * found.variance_bound * (1 - 1e-9):  # rounding must not choose the interval
        half = Z_95 * math.sqrt(found.variance) / (found.pairs * spread)
        low, high = sigmoid(math.log(auc / (1 - auc)) + np.array([-half, half]))
        return auc, (float(low), float(high))
    trials = found.pairs**2 / found.variance_bound
    middle = auc + Z_95**2 / (2 * trials)
    half = Z_95 * math.sqrt(spread / trials + (Z_95 / (2 * trials)) ** 2)
    shrink = 1 + Z_95**2 / trials
    return auc, (max(0.0, (middle - half) / shrink), min(1.0, (middle + half) / shrink))


def _cuts(sums: ScoreSums, *, min_patients: int) -> Int64[np.ndarray, "cut"]:
    """Indices of `EDGES`, ascending, with at least so many patients between two, below the first and above the last.

    All curves are made of the patients between these, so that none splits what another shows whole.
    """
    above = np.cumsum(sums.counts.sum(axis=0)[::-1]).tolist()  # patients at or above the lower edge of each bin
    gap, n = max(min_patients, 1), int(sums.counts.sum())
    cuts, last = [], 0
    for index, count in enumerate(above):
        if min(count - last, n - count) >= gap:
            cuts.append(N_BINS - 1 - index)
            last = count
    return np.array(cuts[::-1], dtype=np.int64)


def _operating_points(
    sums: ScoreSums, *, min_patients: int
) -> tuple[Int64[np.ndarray, "point"], Int64[np.ndarray, "point"], Float64[np.ndarray, "point"]]:
    """False positives, true positives and threshold, from the top; at the last point everyone is positive."""
    cuts = _cuts(sums, min_patients=min_patients)[::-1]
    positive = np.cumsum(sums.counts[:, ::-1], axis=1)  # at or above the lower edge of each bin
    false_positives, true_positives = positive[:, [*(N_BINS - 1 - cuts), -1]]
    return false_positives, true_positives, np.append(sigmoid(EDGES[cuts]), 0.0)


def _average_precision(sums: ScoreSums) -> float:
    curve = precision_recall_curve(sums, min_patients=1)
    return float(np.diff(curve["recall"], prepend=0.0) @ np.array(curve["precision"]))


def _groups_of_equal_size(
    counts: Int64[np.ndarray, "2 bin"], cuts: Int64[np.ndarray, "cut"], *, bins: int
) -> tuple[Float64[np.ndarray, "group"], Float64[np.ndarray, "group"], Float64[np.ndarray, "group"]]:
    """Expected events, events and patients of each group that holds patients, see `calibration_curve`."""
    starts = np.concatenate([[0], cuts])
    total, events, expected = (
        np.add.reduceat(each, starts).astype(np.float64)
        for each in (counts.sum(axis=0), counts[1], counts.sum(axis=0) * sigmoid(CENTRES))
    )
    middle = (np.cumsum(total) - total / 2) / max(total.sum(), 1.0)  # as a share of all patients
    group = np.minimum((bins * middle).astype(np.int64), max(bins - 1, 0))
    sums = [np.bincount(group, weights=each) for each in (expected, events, total)]
    used = (sums[2] > 0) & (bins > 0)
    return sums[0][used], sums[1][used], sums[2][used]


def _expected_calibration_error(sums: ScoreSums) -> float:
    predicted, events, n = _groups_of_equal_size(sums.counts, np.arange(1, N_BINS), bins=10)
    return float(np.abs(predicted - events).sum() / n.sum())


def _calibration_in_the_large(counts: Int64[np.ndarray, "2 bin"]) -> tuple[float, Interval]:
    """The a at which the sum of sigmoid(logit + a) is the number of events, by bisection (the sum rises with a)."""
    total, events = counts.sum(axis=0), int(counts[1].sum())
    centre = math.log(events) - math.log(int(counts[0].sum()))
    low, high = centre - LOGIT_LIMIT, centre + LOGIT_LIMIT  # no logit is beyond the limit, so the root lies between
    for _ in range(60):
        middle = (low + high) / 2
        too_high = float(total @ sigmoid(CENTRES + middle)) > events
        low, high = (low, middle) if too_high else (middle, high)
    found = (low + high) / 2
    risk = sigmoid(CENTRES + found)
    return found, wald_interval(found, 1 / float(total @ (risk * (1 - risk))))


def _calibration_slope(counts: Int64[np.ndarray, "2 bin"]) -> tuple[float, Interval] | tuple[None, None]:
    """Maximum likelihood slope; None where none exists (Albert and Anderson 1984, Biometrika 71:1)."""
    others, events = (CENTRES[row > 0] for row in counts)
    if not (others.size and events.size) or events.min() >= others.max() or others.min() >= events.max():
        return None, None
    used = counts.sum(axis=0) > 0
    total, event = counts.sum(axis=0)[used], counts[1][used]
    design = np.stack([np.ones(total.size), CENTRES[used]])

    def loss(weights: Float64[np.ndarray, "2"]) -> float:
        eta = weights @ design
        return float(total @ np.logaddexp(0.0, eta) - event @ eta)

    def information(risk: Float64[np.ndarray, "bin"]) -> Float64[np.ndarray, "2 2"]:
        return np.asarray((design * (total * risk * (1 - risk))) @ design.T)

    weights = np.zeros(2)
    for _ in range(100):  # Newton's method on a convex function; halving its step makes it converge from anywhere
        risk = sigmoid(weights @ design)
        step = np.linalg.solve(information(risk), design @ (event - total * risk))
        while loss(weights + step) > loss(weights) + 1e-12 * int(total.sum()):
            step /= 2
        weights += step
        if np.abs(step).max() < 1e-9 * (1 + np.abs(weights).max()):
            break
    slope = float(weights[1])
    variance = np.linalg.inv(information(sigmoid(weights @ design)))[1, 1]
    return slope, wald_interval(slope, float(variance))
