import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_model.evaluation.metrics import (
    ScoreSums,
    calibration_curve,
    decision_curve,
    precision_recall_curve,
    roc_curve,
    summarise,
)
from shared_model.evaluation.score_sums import sigmoid

UNTIMED = settings(deadline=None)  # a busy machine is not a failure
PATIENTS = st.lists(st.tuples(st.floats(-6, 6), st.booleans()), max_size=120)
CURVES = (roc_curve, precision_recall_curve, calibration_curve, decision_curve)


def sums_of_list(patients: list[tuple[float, bool]]) -> ScoreSums:
    return ScoreSums.from_scores(
        np.array([x for x, _ in patients], dtype=np.float64), np.array([int(y) for _, y in patients])
    )


def some_sums(n: int = 800) -> tuple[ScoreSums, np.ndarray, np.ndarray]:
    """Scores on the middle of their bins, so that a library gets the same ones."""
    rng = np.random.default_rng(0)
    outcome = (rng.random(n) < 0.15).astype(np.int64)
    logit = np.round(50 * (rng.normal(-2, 1, size=n) + outcome)) / 50 + 0.01
    return ScoreSums.from_scores(logit, outcome), logit, outcome


@pytest.mark.parametrize("curve", CURVES)
def test_curve_is_empty_when_there_are_no_patients(curve: object) -> None:
    assert callable(curve)
    assert all(values == [] for values in curve(ScoreSums.zero()).values())


@pytest.mark.parametrize("curve", [roc_curve, precision_recall_curve])
@pytest.mark.parametrize("outcome", [0, 1])
def test_curve_is_empty_when_there_is_one_class(curve: object, outcome: int) -> None:
    assert callable(curve)
    sums = ScoreSums.from_scores(np.zeros(30), np.full(30, outcome))
    assert all(values == [] for values in curve(sums).values())


def test_roc_curve_matches_scikit_learn_when_every_bin_is_a_point() -> None:
    sums, logit, outcome = some_sums()
    fpr, tpr, _ = sklearn.metrics.roc_curve(outcome, logit, drop_intermediate=False)
    curve = roc_curve(sums, min_patients=1)
    np.testing.assert_allclose(curve["false_positive_rate"], fpr, rtol=1e-12)
    np.testing.assert_allclose(curve["true_positive_rate"], tpr, rtol=1e-12)
    assert np.trapezoid(tpr, fpr) == pytest.approx(summarise(sums).auc, rel=1e-12)


def test_roc_curve_matches_a_hand_calculation() -> None:
    sums = sums_of_list([(2.01, True), (1.01, False), (0.01, True), (-1.01, False)])
    curve = roc_curve(sums, min_patients=1)
    assert curve["true_positive_rate"] == [0.0, 0.5, 0.5, 1.0, 1.0]
    assert curve["false_positive_rate"] == [0.0, 0.0, 0.5, 0.5, 1.0]
    # lower edges of the bins of 2.01, 1.01, 0.01; the last threshold takes in everyone
    expected = [1.0, *(1 / (1 + math.exp(-edge)) for edge in (2.0, 1.0, 0.0)), 0.0]
    assert curve["threshold"] == pytest.approx(expected, abs=1e-12)


def test_precision_recall_curve_matches_scikit_learn_when_every_bin_is_a_point() -> None:
    sums, logit, outcome = some_sums()
    precision, recall, _ = sklearn.metrics.precision_recall_curve(outcome, logit)
    curve = precision_recall_curve(sums, min_patients=1)
    np.testing.assert_allclose(curve["recall"][::-1], recall[:-1], rtol=1e-12)
    np.testing.assert_allclose(curve["precision"][::-1], precision[:-1], rtol=1e-12)


@UNTIMED
@given(PATIENTS.filter(lambda patients: len({event for _, event in patients}) == 2))
def test_roc_curve_takes_at_least_ten_patients_to_each_step(patients: list[tuple[float, bool]]) -> None:
    sums = sums_of_list(patients)
    curve = roc_curve(sums)
    others, events = sums.counts.sum(axis=1)
    positive = others * np.array(curve["false_positive_rate"]) + events * np.array(curve["true_positive_rate"])
    steps = np.round(np.diff(positive))
    assert steps.sum() == len(patients)
    assert steps.min() >= min(10, len(patients))


def test_roc_curve_stays_near_the_full_one_when_steps_hold_ten_patients() -> None:
    sums, _, _ = some_sums()
    curve = roc_curve(sums)
    area = np.trapezoid(curve["true_positive_rate"], curve["false_positive_rate"])
    assert area == pytest.approx(summarise(sums).auc, abs=0.005)


def test_calibration_curve_matches_a_hand_calculation() -> None:
    # 20 patients at logit 0.01 - 2 and 20 at 0.01 + 2: two groups of their own risk
    sums = sums_of_list([(-1.99, i < 3) for i in range(20)] + [(2.01, i < 15) for i in range(20)])
    curve = calibration_curve(sums)
    assert curve["n"] == [20.0, 20.0]
    assert curve["observed"] == [0.15, 0.75]
    assert curve["predicted"] == pytest.approx([1 / (1 + math.exp(1.99)), 1 / (1 + math.exp(-2.01))], abs=1e-12)


def test_calibration_curve_puts_a_shared_score_where_the_middle_of_its_patients_lies() -> None:
    # of 30 patients in 2 groups the middles are at 4, 13 and 24: the first two lie in the lower half
    sums = sums_of_list([(-2.0, False)] * 8 + [(0.0, False)] * 10 + [(2.0, True)] * 12)
    assert calibration_curve(sums, bins=2)["n"] == [18.0, 12.0]


def test_calibration_curve_has_groups_of_equal_size_when_scores_are_spread() -> None:
    logit = np.linspace(-3, 3, 1000)
    curve = calibration_curve(ScoreSums.from_scores(logit, np.arange(1000) % 2))
    assert len(curve["n"]) == 10
    assert min(curve["n"]) >= 90  # between two cuts lie 10 to 13 patients
    assert max(curve["n"]) <= 110
    assert curve["predicted"] == sorted(curve["predicted"])


@UNTIMED
@given(PATIENTS, st.integers(1, 20))
def test_calibration_curve_has_at_most_a_group_per_ten_patients(patients: list[tuple[float, bool]], bins: int) -> None:
    curve = calibration_curve(sums_of_list(patients), bins=bins)
    assert len(curve["n"]) <= min(bins, len(patients) // 10)
    assert sum(curve["n"]) == (len(patients) if len(patients) >= 10 else 0)


def test_decision_curve_matches_a_hand_calculation() -> None:
    # 100 patients: 20 at risk 0.31 of whom 10 die, 80 at 0.01 of whom 5 die: one threshold between them
    sums = sums_of_list([(-0.79, i < 10) for i in range(20)] + [(-4.59, i < 5) for i in range(80)])
    curve = decision_curve(sums)
    odds = math.exp(-0.8)  # the lower edge of the bin of -0.79
    assert curve["threshold"] == pytest.approx([odds / (1 + odds)], abs=1e-12)
    assert curve["model"] == pytest.approx([10 / 100 - 10 / 100 * odds], abs=1e-12)
    assert curve["treat_all"] == pytest.approx([15 / 100 - 85 / 100 * odds], abs=1e-12)
    assert curve["treat_none"] == [0.0]


def test_decision_curve_is_exact_at_all_its_thresholds() -> None:
    sums, logit, outcome = some_sums()
    curve = decision_curve(sums)
    thresholds = np.array(curve["threshold"])
    treated = sigmoid(logit)[:, None] >= thresholds - 1e-12
    expected = (outcome @ treated - thresholds / (1 - thresholds) * ((1 - outcome) @ treated)) / logit.size
    np.testing.assert_allclose(curve["model"], expected, atol=1e-12)
    assert len(thresholds) > 20
    assert 0.01 <= thresholds.min() < thresholds.max() <= 0.5


@UNTIMED
@given(PATIENTS.filter(lambda patients: len({event for _, event in patients}) == 2))
def test_curves_cut_the_patients_at_the_same_scores(patients: list[tuple[float, bool]]) -> None:
    sums = sums_of_list(patients)
    roc, calibration = roc_curve(sums), calibration_curve(sums)
    assert set(decision_curve(sums)["threshold"]) <= set(roc["threshold"])
    assert precision_recall_curve(sums)["threshold"] == roc["threshold"][1:]
    others, events = sums.counts.sum(axis=1)
    positive = others * np.array(roc["false_positive_rate"]) + events * np.array(roc["true_positive_rate"])
    above = np.cumsum(calibration["n"][::-1])  # of the groups with the highest risks
    assert set(above) <= set(np.round(positive))
