import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from shared_model.errors import ProtocolError, StudyError
from shared_model.evaluation.score_sums import EDGES, N_BINS, Concordance, ScoreSums, exact_auc, sigmoid

UNTIMED = settings(deadline=None)  # a busy machine is not a failure
PATIENTS = st.lists(st.tuples(st.floats(-12, 12), st.booleans()), max_size=40)
SUM_NAMES = (
    "n",
    "events",
    "brier_sum",
    "log_loss_sum",
    "concordant",
    "pairs",
    "concordant_variance",
    "variance_bound",
)


def sums_of(patients: list[tuple[float, bool]]) -> ScoreSums:
    logit = np.array([score for score, _ in patients], dtype=np.float64)
    return ScoreSums.from_scores(logit, np.array([event for _, event in patients], dtype=np.int8))


def assert_same(left: ScoreSums, right: ScoreSums) -> None:
    np.testing.assert_array_equal(left.counts, right.counts)
    for name in SUM_NAMES:
        assert getattr(left, name) == pytest.approx(getattr(right, name), rel=1e-12), name


def message(**changes: float) -> dict[str, np.ndarray]:
    """Four patients: events at 2 and 0, non-events at 1 and -1; with some sums changed."""
    arrays = sums_of([(2.0, True), (0.0, True), (1.0, False), (-1.0, False)]).to_arrays()
    for name, value in changes.items():
        arrays["score-sums"][SUM_NAMES.index(name)] = value
    return arrays


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_are_refused_when_a_logit_is_not_finite(value: float) -> None:
    with pytest.raises(StudyError, match="expected finite numbers, got NaN or infinity"):
        ScoreSums.from_scores(np.array([0.0, value]), np.array([0, 1]))


@pytest.mark.parametrize("outcome", [[0, 2], [0.0, 0.5], [0.0, float("nan")]])
def test_scores_are_refused_when_an_outcome_is_not_0_or_1(outcome: list[float]) -> None:
    with pytest.raises(ValueError, match="expected 0 or 1"):
        ScoreSums.from_scores(np.zeros(2), np.array(outcome))


def test_message_is_refused_when_an_array_is_missing() -> None:
    with pytest.raises(ProtocolError, match="expected score-counts and score-sums, got score-sums"):
        ScoreSums.from_arrays({"score-sums": message()["score-sums"]})


def test_message_is_refused_when_an_array_is_extra() -> None:
    with pytest.raises(ProtocolError, match="got ages, score-counts, score-sums"):
        ScoreSums.from_arrays(message() | {"ages": np.zeros(3)})


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("score-counts", np.zeros((2, N_BINS - 1), dtype=np.int64)),
        ("score-counts", np.zeros((2, N_BINS), dtype=np.float64)),
        ("score-sums", np.zeros(7)),
        ("score-sums", np.zeros(8, dtype=np.float32)),
    ],
)
def test_message_is_refused_when_shape_or_dtype_is_wrong(name: str, array: np.ndarray) -> None:
    with pytest.raises(ProtocolError, match=f"{name} at evaluation message: expected .* of shape"):
        ScoreSums.from_arrays(message() | {name: array})


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_message_is_refused_when_a_sum_is_negative_or_not_finite(value: float) -> None:
    with pytest.raises(ProtocolError, match="expected finite numbers from 0"):
        ScoreSums.from_arrays(message(log_loss_sum=value))


def test_message_is_refused_when_a_count_is_negative() -> None:
    arrays = message()
    arrays["score-counts"][0, 0] = -1
    with pytest.raises(ProtocolError, match="score-counts at evaluation message: expected finite numbers from 0"):
        ScoreSums.from_arrays(arrays)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("n", 5.0, "score-counts that add up to n"),
        ("n", 2.0**60, "n below"),
        ("events", 1.0, "row 1 of score-counts to add up to events"),
        ("brier_sum", 4.1, "brier_sum of at most n"),
        ("pairs", 5.0, "pairs of at most events times non-events"),
        ("concordant", 4.5, "concordant of at most pairs"),
        ("variance_bound", 17.0, "variance_bound of at most pairs squared"),
        ("concordant_variance", 9.0, "concordant_variance of at most variance_bound"),
    ],
)
def test_message_is_refused_when_its_parts_contradict(name: str, value: float, rule: str) -> None:
    with pytest.raises(ProtocolError, match=rule):
        ScoreSums.from_arrays(message(**{name: value}))


def test_message_is_refused_when_huge_counts_would_wrap_around_to_n() -> None:
    arrays = message()
    arrays["score-counts"][0, :4] += 2**62  # four times 2^62 is 0 in int64
    with pytest.raises(ProtocolError, match="add up to n"):
        ScoreSums.from_arrays(arrays)


@UNTIMED
@given(PATIENTS)
def test_message_gives_back_the_sums(patients: list[tuple[float, bool]]) -> None:
    sums = sums_of(patients)
    assert_same(ScoreSums.from_arrays(sums.to_arrays()), sums)


@UNTIMED
@given(PATIENTS, PATIENTS, PATIENTS)
def test_message_of_several_hospitals_is_consistent(
    first: list[tuple[float, bool]], second: list[tuple[float, bool]], third: list[tuple[float, bool]]
) -> None:
    merged = sums_of(first) + sums_of(second) + sums_of(third)
    assert_same(ScoreSums.from_arrays(merged.to_arrays()), merged)


@UNTIMED
@given(PATIENTS, PATIENTS, PATIENTS)
def test_addition_is_commutative_and_associative(
    first: list[tuple[float, bool]], second: list[tuple[float, bool]], third: list[tuple[float, bool]]
) -> None:
    a, b, c = sums_of(first), sums_of(second), sums_of(third)
    assert_same(a + b, b + a)
    assert_same((a + b) + c, a + (b + c))


def test_zero_changes_nothing_when_added() -> None:
    sums = sums_of([(0.3, True), (-4.0, False)])
    assert_same(ScoreSums.zero() + sums, sums)


def test_zero_equals_the_sums_of_no_patients() -> None:
    assert_same(ScoreSums.zero(), sums_of([]))


def test_counts_put_each_logit_between_its_edges() -> None:
    sums = sums_of([(0.0, False), (0.01, True), (-10.0, False), (9.99, True)])
    rows, columns = np.nonzero(sums.counts)
    # bin k is [-10 + 0.02 k, -10 + 0.02 (k + 1))
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 0), (0, 500), (1, 500), (1, 999)]
    assert EDGES[500] == 0.0


def test_counts_put_logits_beyond_the_limits_in_the_outer_bins() -> None:
    sums = sums_of([(-300.0, False), (300.0, True)])
    assert sums.counts[0, 0] == 1
    assert sums.counts[1, -1] == 1


def test_brier_and_log_loss_sums_match_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    logit, outcome = rng.normal(-2, 3, size=500), rng.integers(0, 2, size=500)
    sums = ScoreSums.from_scores(logit, outcome)
    risk = 1 / (1 + np.exp(-logit))
    assert sums.brier_sum == pytest.approx(500 * brier_score_loss(outcome, risk), rel=1e-12)
    assert sums.log_loss_sum == pytest.approx(500 * log_loss(outcome, risk), rel=1e-12)


def test_log_loss_stays_exact_when_the_probability_rounds_to_1() -> None:
    # -log(1 - sigmoid(800)) = log(1 + e^800) = 800; sigmoid(800) is 1.0 in float64
    assert sums_of([(800.0, False)]).log_loss_sum == 800.0


def test_sigmoid_matches_hand_values_and_does_not_overflow() -> None:
    np.testing.assert_allclose(sigmoid(np.array([-1e4, 0.0, np.log(3.0), 1e4])), [0.0, 0.5, 0.75, 1.0], atol=1e-15)


def test_concordant_pairs_match_a_hand_count() -> None:
    # event 2 beats both non-events, event 0 beats -1 only: 3 of 4 pairs
    sums = ScoreSums.from_arrays(message())
    assert (sums.concordant, sums.pairs) == (3.0, 4.0)
    # wins 2 and 1, losses 1 and 0: n1 var(wins) + n0 var(losses) = 2 * 0.5 + 2 * 0.5
    assert sums.concordant_variance == 2.0
    assert sums.variance_bound == 8.0  # 4^2 / 2


def test_pairs_count_within_hospitals_only() -> None:
    merged = sums_of([(1.0, True), (0.0, False)]) + sums_of([(5.0, False), (5.0, True)])
    assert (merged.concordant, merged.pairs) == (1.5, 2.0)


def test_variance_is_the_largest_possible_when_a_hospital_has_one_event() -> None:
    sums = sums_of([(1.0, True), (0.0, False), (2.0, False), (-1.0, False)])
    # 3 pairs: 3^2 / min(1, 3) = 9, times the largest A (1 - A) = 1/4
    assert (sums.variance_bound, sums.concordant_variance) == (9.0, 2.25)


def test_hospital_adds_no_pairs_when_nobody_died() -> None:
    sums = sums_of([(1.0, False), (0.0, False)])
    assert (sums.pairs, sums.concordant, sums.concordant_variance, sums.variance_bound) == (0.0, 0.0, 0.0, 0.0)


@UNTIMED
@given(PATIENTS.filter(lambda patients: len({event for _, event in patients}) == 2))
def test_exact_auc_matches_scikit_learn(patients: list[tuple[float, bool]]) -> None:
    logit = np.array([score for score, _ in patients])
    outcome = np.array([event for _, event in patients], dtype=np.int8)
    assert exact_auc(logit, outcome) == pytest.approx(roc_auc_score(outcome, logit), abs=1e-12)


def test_exact_auc_is_none_when_a_class_is_empty() -> None:
    assert exact_auc(np.array([1.0, 2.0]), np.array([1, 1])) is None


@UNTIMED
@given(PATIENTS.filter(lambda patients: min(sum(e for _, e in patients), sum(not e for _, e in patients)) >= 2))
def test_variance_matches_delong_on_raw_scores(patients: list[tuple[float, bool]]) -> None:
    # DeLong et al. 1988: structural components V10, V01 of the kernel psi, S10 / n1 + S01 / n0
    events = np.array([score for score, event in patients if event])
    others = np.array([score for score, event in patients if not event])
    psi = (events[:, None] > others).astype(float) + 0.5 * (events[:, None] == others)
    expected = psi.mean(axis=1).var(ddof=1) / events.size + psi.mean(axis=0).var(ddof=1) / others.size
    sums = sums_of(patients)
    assert sums.concordant_variance / sums.pairs**2 == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_concordance_of_binned_counts_takes_patients_of_a_bin_as_tied() -> None:
    # columns ascend: one non-event; one of each; one event. Pairs: 1 + 1/2 + 1 + 1 = 3.5 of 4
    found = Concordance.from_counts(np.array([[1, 1, 0], [0, 1, 1]]))
    assert (found.concordant, found.pairs) == (3.5, 4.0)
