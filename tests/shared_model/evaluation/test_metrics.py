import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from shared_model.evaluation.metrics import Metrics, ScoreSums, exact_auc, summarise
from shared_model.evaluation.score_sums import CENTRES

UNTIMED = settings(deadline=None)  # a busy machine is not a failure
HEART_DISEASE = Path(__file__).resolve().parents[3] / "../shared/data/cohorts/heart_disease"
Cohort = tuple[np.ndarray, np.ndarray]
BOTH_CLASSES = st.lists(st.tuples(st.floats(-12, 12), st.booleans()), min_size=2, max_size=40).filter(
    lambda patients: len({event for _, event in patients}) == 2
)


def cohort(
    rng: np.random.Generator, *, n: int = 1669, prevalence: float = 0.078, sd: float = 1.0, effect: float = 1.1
) -> Cohort:
    """Logits of non-events normal, those of events `effect` standard deviations higher; both classes occur."""
    outcome = rng.random(n) < prevalence
    outcome[:2] = (True, False)
    return sd * (rng.normal(size=n) + effect * outcome) - 2.8, outcome.astype(np.int8)


def rounded_to_bins(logit: np.ndarray) -> np.ndarray:
    return np.asarray(CENTRES[np.clip(np.floor((logit + 10) * 50).astype(int), 0, 999)])


def metrics_of(logit: np.ndarray, outcome: np.ndarray) -> Metrics:
    return summarise(ScoreSums.from_scores(logit, outcome))


def metrics_of_list(patients: list[tuple[float, bool]]) -> Metrics:
    return metrics_of(np.array([x for x, _ in patients], dtype=np.float64), np.array([int(y) for _, y in patients]))


def test_metrics_are_none_when_there_are_no_patients() -> None:
    values = summarise(ScoreSums.zero()).to_dict()
    assert (values.pop("n"), values.pop("events")) == (0, 0)
    assert set(values.values()) == {None}


@pytest.mark.parametrize(("outcome", "events"), [(0, 0), (1, 3)])
def test_metrics_keep_only_the_defined_values_when_there_is_one_class(outcome: int, events: int) -> None:
    metrics = metrics_of(np.array([-1.0, 0.5, 0.5]), np.full(3, outcome))
    defined = {name for name, value in metrics.to_dict().items() if value is not None}
    assert defined == {"n", "events", "brier", "log_loss", "ece"}
    assert (metrics.n, metrics.events) == (3, events)


def test_metrics_to_dict_has_exactly_the_published_keys_in_order_and_is_json() -> None:
    values = metrics_of(*cohort(np.random.default_rng(0))).to_dict()
    assert list(values) == [
        "n",
        "events",
        "auc",
        "auc_ci",
        "auc_within",
        "auc_within_ci",
        "auprc",
        "auprc_ci",
        "brier",
        "brier_ci",
        "log_loss",
        "log_loss_ci",
        "calibration_slope",
        "calibration_slope_ci",
        "calibration_intercept",
        "calibration_intercept_ci",
        "ece",
    ]
    assert json.loads(json.dumps(values, allow_nan=False)) == values


def test_merged_hospitals_give_exactly_the_metrics_of_the_pooled_patients() -> None:
    logit, outcome = cohort(np.random.default_rng(1))
    pooled = metrics_of(logit, outcome)
    parts = np.split(np.arange(logit.size), [10, 500, 501, 1200])
    merged = summarise(sum((ScoreSums.from_scores(logit[i], outcome[i]) for i in parts), ScoreSums.zero()))
    assert merged.brier == pytest.approx(pooled.brier, rel=1e-13)
    assert merged.log_loss == pytest.approx(pooled.log_loss, rel=1e-13)
    assert merged.brier_ci == pytest.approx(pooled.brier_ci, rel=1e-12)
    assert merged.log_loss_ci == pytest.approx(pooled.log_loss_ci, rel=1e-12)
    # sums of reals differ by rounding, and pairs within a hospital by definition; all else is equal to the last bit
    assert merged == replace(
        pooled,
        brier=merged.brier,
        log_loss=merged.log_loss,
        brier_ci=merged.brier_ci,
        log_loss_ci=merged.log_loss_ci,
        auc_within=merged.auc_within,
        auc_within_ci=merged.auc_within_ci,
    )


@UNTIMED
@given(BOTH_CLASSES)
def test_auc_stays_between_0_and_1_within_its_interval(patients: list[tuple[float, bool]]) -> None:
    metrics = metrics_of_list(patients)
    for auc, interval in ((metrics.auc, metrics.auc_ci), (metrics.auc_within, metrics.auc_within_ci)):
        assert auc is not None
        assert interval is not None
        assert 0 <= interval[0] <= auc + 1e-12
        assert auc - 1e-12 <= interval[1] <= 1


@UNTIMED
@given(BOTH_CLASSES)
def test_auc_becomes_1_minus_itself_when_outcomes_are_flipped(patients: list[tuple[float, bool]]) -> None:
    metrics, flipped = metrics_of_list(patients), metrics_of_list([(x, not y) for x, y in patients])
    assert metrics.auc is not None
    assert metrics.auc_ci is not None
    assert flipped.auc == pytest.approx(1 - metrics.auc, abs=1e-12)
    assert flipped.auc_ci == pytest.approx((1 - metrics.auc_ci[1], 1 - metrics.auc_ci[0]), abs=1e-9)


@UNTIMED
@given(BOTH_CLASSES)
def test_auc_is_off_by_at_most_half_the_pairs_that_share_a_bin(patients: list[tuple[float, bool]]) -> None:
    logit, outcome = np.array([x for x, _ in patients]), np.array([int(y) for _, y in patients])
    sums = ScoreSums.from_scores(logit, outcome)
    bound = float(sums.counts[0] @ sums.counts[1]) / sums.pairs / 2
    metrics, exact = summarise(sums), exact_auc(logit, outcome)
    assert metrics.auc == pytest.approx(exact, abs=bound + 1e-12)
    assert metrics.auc_within == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("sd", [0.6, 1.0, 2.0])
def test_auc_is_within_a_thousandth_of_the_exact_one_at_the_size_of_the_paper(sd: float) -> None:
    rng = np.random.default_rng(2)
    for logit, outcome in (cohort(rng, sd=sd) for _ in range(60)):
        assert metrics_of(logit, outcome).auc == pytest.approx(roc_auc_score(outcome, logit), abs=1e-3)


@pytest.mark.parametrize("n", [40, 130, 334])
def test_auc_is_within_a_fifth_of_its_standard_error_when_the_hospital_is_small(n: int) -> None:
    rng = np.random.default_rng(3)
    for logit, outcome in (cohort(rng, n=n, prevalence=0.1, sd=0.8) for _ in range(60)):
        sums = ScoreSums.from_scores(logit, outcome)
        standard_error = math.sqrt(sums.concordant_variance) / sums.pairs
        assert summarise(sums).auc == pytest.approx(roc_auc_score(outcome, logit), abs=0.2 * standard_error)


def test_auc_interval_is_delongs_on_the_logit_scale_by_hand() -> None:
    # events 3, 1; non-events 2, 0: A = 3/4; V10 = (1, 1/2), V01 = (1/2, 1); S10 = S01 = 1/8; var = 1/16 + 1/16 = 1/8
    # but no score of 2 and 2 patients varies more than A (1 - A) / 2 = 3/32: Wilson with 2 trials
    z2 = NormalDist().inv_cdf(0.975) ** 2
    half = math.sqrt(z2 * (3 / 32 + z2 / 16))
    expected = ((0.75 + z2 / 4 - half) / (1 + z2 / 2), (0.75 + z2 / 4 + half) / (1 + z2 / 2))
    metrics = metrics_of(np.array([3.0, 1.0, 2.0, 0.0]), np.array([1, 1, 0, 0]))
    assert metrics.auc == 0.75
    assert metrics.auc_ci == pytest.approx(expected, rel=1e-12)


def test_auc_interval_matches_delong_on_the_rounded_logits() -> None:
    logit, outcome = cohort(np.random.default_rng(4), n=400, sd=0.3)
    rounded = rounded_to_bins(logit)
    events, others = rounded[outcome == 1], rounded[outcome == 0]
    psi = (events[:, None] > others).astype(float) + 0.5 * (events[:, None] == others)
    auc = psi.mean()
    variance = psi.mean(axis=1).var(ddof=1) / events.size + psi.mean(axis=0).var(ddof=1) / others.size
    centre, half = math.log(auc / (1 - auc)), 1.959963984540054 * math.sqrt(variance) / (auc * (1 - auc))
    expected = [1 / (1 + math.exp(-end)) for end in (centre - half, centre + half)]
    assert metrics_of(logit, outcome).auc_ci == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("sign", "auc"), [(1, 1.0), (-1, 0.0)])
def test_auc_interval_is_wilsons_when_a_threshold_separates_the_classes(sign: int, auc: float) -> None:
    # Wilson with 4 of 4: lower end 4 / (4 + z^2)
    metrics = metrics_of(sign * np.array([1.0, 2.0, 3.0, 4.0, -1, -2, -3, -4, -5]), np.array([1] * 4 + [0] * 5))
    end = 4 / (4 + NormalDist().inv_cdf(0.975) ** 2)
    expected = (end, 1.0) if sign > 0 else (0.0, 1 - end)
    assert metrics.auc == auc
    assert metrics.auc_ci == pytest.approx(expected, abs=1e-12)
    assert metrics.auc_within_ci == pytest.approx(expected, abs=1e-12)
    assert metrics.calibration_slope is None
    assert metrics.auprc == pytest.approx(
        1.0 if sign > 0 else average_precision_score([0] * 5 + [1] * 4, range(9, 0, -1))
    )


def test_metrics_are_those_of_a_constant_when_all_scores_tie() -> None:
    metrics = metrics_of(np.full(10, 0.01), np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0]))
    assert (metrics.auc, metrics.auc_within) == (0.5, 0.5)
    assert metrics.auc_ci is not None
    assert metrics.auc_ci[0] < 0.25  # no false certainty
    assert metrics.auc_ci[1] > 0.75
    assert metrics.auprc == pytest.approx(0.3)
    assert metrics.calibration_slope is None
    # sigmoid(0.01 + a) = 0.3, so a = log(3 / 7) - 0.01
    assert metrics.calibration_intercept == pytest.approx(math.log(3 / 7) - 0.01, abs=1e-12)
    assert metrics.ece == pytest.approx(1 / (1 + math.exp(-0.01)) - 0.3, abs=1e-12)


@pytest.mark.parametrize("events", [30, 130])
def test_auc_interval_covers_the_true_value_in_about_95_of_100_studies(events: int) -> None:
    rng = np.random.default_rng(5)
    truth = NormalDist().cdf(1.1 / math.sqrt(2))  # two normals 1.1 standard deviations apart
    inside = []
    for _ in range(600):
        metrics = metrics_of(*cohort(rng, n=10 * events, prevalence=0.1))
        assert metrics.auc_ci is not None
        inside.append(metrics.auc_ci[0] <= truth <= metrics.auc_ci[1])
    assert 0.925 <= np.mean(inside) <= 0.975


def test_auc_within_interval_covers_the_true_value_when_hospitals_differ_in_level() -> None:
    rng = np.random.default_rng(6)
    truth = NormalDist().cdf(1.1 / math.sqrt(2))
    inside = []
    for _ in range(400):
        sums = ScoreSums.zero()
        for level in range(5):
            logit, outcome = cohort(rng, n=150, prevalence=0.08 + 0.04 * level)
            sums = sums + ScoreSums.from_scores(logit + level, outcome)
        metrics = summarise(sums)
        assert metrics.auc_within_ci is not None
        inside.append(metrics.auc_within_ci[0] <= truth <= metrics.auc_within_ci[1])
    assert 0.925 <= np.mean(inside) <= 0.98


def test_auc_within_ignores_differences_between_hospitals_by_hand() -> None:
    # the score tells only the hospital: event at A 2 > 2 tie, B -2 tie; within each hospital nothing is ranked
    first = ScoreSums.from_scores(np.full(4, 2.0), np.array([1, 1, 1, 0]))
    second = ScoreSums.from_scores(np.full(4, -2.0), np.array([1, 0, 0, 0]))
    metrics = summarise(first + second)
    assert metrics.auc_within == 0.5
    # pooled: 3 events at 2 beat 3 non-events at -2 (9) and tie one (1.5); the event at -2 ties 3 (1.5): 12 of 16
    assert metrics.auc == 0.75


@pytest.mark.skipif(not HEART_DISEASE.is_dir(), reason="the real cohort heart_disease is not beside this checkout")
def test_auc_within_is_a_half_when_real_hospitals_are_scored_by_their_prevalence() -> None:
    sums = ScoreSums.zero()
    for table in sorted(HEART_DISEASE.glob("*/patients.csv")):
        outcome = pd.read_csv(table)["disease"].to_numpy(dtype=np.int8)
        sums = sums + ScoreSums.from_scores(
            np.full(outcome.size, np.log(outcome.mean() / (1 - outcome.mean()))), outcome
        )
    metrics = summarise(sums)
    assert (metrics.n, metrics.events) == (920, 509)
    assert metrics.auc == pytest.approx(0.720, abs=0.0005)  # as published with the cohort
    assert metrics.auc_within == 0.5
    assert metrics.calibration_slope == pytest.approx(1.0, abs=0.02)


def test_auc_within_weighs_hospitals_by_their_pairs_by_hand() -> None:
    perfect = ScoreSums.from_scores(np.array([1.0, 0.0]), np.array([1, 0]))  # 1 of 1 pair
    wrong = ScoreSums.from_scores(np.array([0.0, 1.0, 2.0, 3.0]), np.array([1, 0, 0, 0]))  # 0 of 3 pairs
    assert summarise(perfect + wrong).auc_within == 0.25


@pytest.mark.parametrize("sd", [0.05, 0.3, 1.0, 6.0])
def test_auprc_is_scikit_learns_average_precision_of_the_rounded_logits(sd: float) -> None:
    logit, outcome = cohort(np.random.default_rng(7), n=500, sd=sd)
    expected = average_precision_score(outcome, rounded_to_bins(logit))
    assert metrics_of(logit, outcome).auprc == pytest.approx(expected, rel=1e-12)


def test_brier_and_log_loss_match_scikit_learn_over_merged_hospitals() -> None:
    rng = np.random.default_rng(8)
    first, second = cohort(rng, n=200), cohort(rng, n=90)
    metrics = summarise(ScoreSums.from_scores(*first) + ScoreSums.from_scores(*second))
    logit, outcome = np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])
    risk = 1 / (1 + np.exp(-logit))
    assert metrics.brier == pytest.approx(brier_score_loss(outcome, risk), rel=1e-12)
    assert metrics.log_loss == pytest.approx(log_loss(outcome, risk), rel=1e-12)


@pytest.mark.parametrize(("n", "tolerance"), [(1669, 0.005), (334, 0.015)])
def test_calibration_slope_matches_scikit_learn_on_the_raw_logits(n: int, tolerance: float) -> None:
    rng = np.random.default_rng(9)
    for sd in (0.4, 1.0, 2.5):
        logit, outcome = cohort(rng, n=n, sd=sd)
        fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit[:, None], outcome)
        assert metrics_of(logit, outcome).calibration_slope == pytest.approx(fit.coef_[0, 0], rel=tolerance)


def test_calibration_slope_is_the_maximum_likelihood_one_by_hand() -> None:
    # odds of the event 1 : 3 at -1.01 and 3 : 1 at 1.01, so slope = log(9) / 2.02
    logit = np.array([-1.01] * 4 + [1.01] * 4)
    metrics = metrics_of(logit, np.array([1, 0, 0, 0, 1, 1, 1, 0]))
    assert metrics.calibration_slope == pytest.approx(math.log(9) / 2.02, rel=1e-9)
    assert metrics.calibration_intercept == pytest.approx(0.0, abs=1e-9)


def test_calibration_slope_is_none_when_the_classes_share_only_their_boundary() -> None:
    # quasi-complete separation: the likelihood rises for ever
    assert metrics_of(np.array([-1.0, 0.0, 0.0, 1.0]), np.array([0, 0, 1, 1])).calibration_slope is None


@UNTIMED
@given(st.lists(st.tuples(st.integers(-400, 400), st.booleans()), min_size=2, max_size=40))
def test_calibration_slope_solves_the_score_equations_when_it_exists(patients: list[tuple[int, bool]]) -> None:
    events, others = ([x / 50 + 0.01 for x, y in patients if y == row] for row in (True, False))  # middles of bins
    x = np.array(events + others)
    slope = metrics_of(x, np.array([1] * len(events) + [0] * len(others))).calibration_slope
    if not (events and others and min(events) < max(others) and min(others) < max(events)):
        assert slope is None
        return
    assert slope is not None
    low, high = -1e5, 1e5  # the intercept that fits this slope
    for _ in range(200):
        middle = (low + high) / 2
        risk = 0.5 * (1 + np.tanh(0.5 * (middle + slope * x)))
        low, high = (low, middle) if risk.sum() > len(events) else (middle, high)
    assert float(x @ risk) == pytest.approx(sum(events), abs=1e-4)


def test_calibration_is_1_and_0_when_the_risks_are_true() -> None:
    rng = np.random.default_rng(10)
    logit = rng.normal(-2, 1, size=200_000)
    metrics = metrics_of(logit, (rng.random(logit.size) < 1 / (1 + np.exp(-logit))).astype(np.int8))
    assert metrics.calibration_slope == pytest.approx(1.0, abs=0.03)  # 4 standard errors
    assert metrics.calibration_intercept == pytest.approx(0.0, abs=0.03)
    assert metrics.ece is not None
    assert metrics.ece < 0.005


def test_calibration_intercept_is_the_shift_of_every_logit() -> None:
    logit, outcome = cohort(np.random.default_rng(11), sd=0.7)
    there, shifted = metrics_of(logit, outcome), metrics_of(logit + 0.5, outcome)
    assert there.calibration_intercept is not None
    assert shifted.calibration_intercept == pytest.approx(there.calibration_intercept - 0.5, abs=1e-9)
    assert shifted.calibration_slope == pytest.approx(there.calibration_slope, rel=1e-6)


def test_ece_matches_a_hand_calculation() -> None:
    # 10 patients at risk 1/4 (logit log(1/3)), 4 die: gap 0.15; 10 at 3/4, 7 die: gap 0.05; mean 0.10
    x = math.log(3)
    metrics = metrics_of(np.array([-x] * 10 + [x] * 10), np.array([1] * 4 + [0] * 6 + [1] * 7 + [0] * 3))
    assert metrics.ece == pytest.approx(0.10, abs=0.002)  # a bin is 0.02 wide, so its risk is known to 0.002
