"""Intervals of the metrics: by hand, and how often they hold the true value."""

import math

import numpy as np
import pytest

from tests.shared_model.evaluation.test_metrics import Cohort, cohort, metrics_of, rounded_to_bins


def test_intervals_of_brier_and_log_loss_are_those_of_a_mean_over_patients() -> None:
    logit, outcome = cohort(np.random.default_rng(12), n=700)
    risk = 1 / (1 + np.exp(-rounded_to_bins(logit)))
    losses = {"brier": (risk - outcome) ** 2, "log_loss": -np.log(np.where(outcome == 1, risk, 1 - risk))}
    values = metrics_of(logit, outcome).to_dict()
    for name, loss in losses.items():
        value, half = values[name], 1.959963984540054 * loss.std(ddof=1) / math.sqrt(loss.size)
        assert isinstance(value, float)
        assert values[f"{name}_ci"] == pytest.approx([value - half, value + half], rel=1e-12)


def test_interval_of_average_precision_is_the_logit_one_by_hand() -> None:
    # scores 4 3 2 1, events at 4 and 2: precision 1 and 2/3 at recall 1/2 and 1, so 5/6; odds 5
    metrics = metrics_of(np.array([4.0, 3.0, 2.0, 1.0]), np.array([1, 0, 1, 0]))
    half = 1.959963984540054 / math.sqrt(2 * 5 / 6 * 1 / 6)
    expected = [1 / (1 + math.exp(-(math.log(5) + sign * half))) for sign in (-1, 1)]
    assert metrics.auprc == pytest.approx(5 / 6)
    assert metrics.auprc_ci == pytest.approx(expected, rel=1e-12)


def test_average_precision_of_1_has_no_interval() -> None:
    metrics = metrics_of(np.array([4.0, 3.0, 2.0, 1.0]), np.array([1, 1, 0, 0]))
    assert (metrics.auprc, metrics.auprc_ci) == (1.0, None)


def test_intervals_of_calibration_are_those_of_the_fisher_information_by_hand() -> None:
    # 3 of 4 events at 1.01, 1 of 4 at -1.01: risks 1/4 and 3/4, information of the slope 8 * 3/16 * 1.01^2
    logit = np.array([-1.01] * 4 + [1.01] * 4)
    metrics = metrics_of(logit, np.array([1, 0, 0, 0, 1, 1, 1, 0]))
    z, slope = 1.959963984540054, math.log(9) / 2.02
    half = z / math.sqrt(8 * 3 / 16 * 1.01**2)
    assert metrics.calibration_slope_ci == pytest.approx((slope - half, slope + half), rel=1e-9)
    # with slope 1 and intercept 0 every patient has the variance of a risk of sigmoid(1.01)
    risk = 1 / (1 + math.exp(-1.01))
    half = z / math.sqrt(8 * risk * (1 - risk))
    assert metrics.calibration_intercept_ci == pytest.approx((-half, half), abs=1e-9)


@pytest.mark.parametrize("events", [30, 130])
def test_intervals_cover_the_true_value_in_about_95_of_100_studies(events: int) -> None:
    def draw(rng: np.random.Generator, n: int) -> Cohort:
        logit = rng.normal(-2.8, 1.0, n)
        return logit, (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.int8)

    rng = np.random.default_rng(13)
    names = ("auprc", "brier", "log_loss", "calibration_slope", "calibration_intercept")
    truth = metrics_of(*draw(rng, 1_000_000)).to_dict() | {"calibration_slope": 1.0, "calibration_intercept": 0.0}
    inside: dict[str, list[bool]] = {name: [] for name in names}
    for _ in range(500):
        values = metrics_of(*draw(rng, round(events / 0.083))).to_dict()
        for name in names:
            ends, true = values[f"{name}_ci"], truth[name]
            assert isinstance(ends, list)
            assert isinstance(true, float)
            inside[name].append(ends[0] <= true <= ends[1])
    for name, hits in inside.items():
        assert 0.91 <= np.mean(hits) <= 0.98, name
