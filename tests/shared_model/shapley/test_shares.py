import numpy as np
import pytest
from scipy.stats import norm, t
from statsmodels.stats.meta_analysis import combine_effects

from shared_model.shapley.shares import (
    SMALLEST_VARIANCE,
    Between,
    Shares,
    between_sums,
    combine_hospitals,
    mean_interval,
    share_of_means,
    tau_squared,
)

ONE = np.zeros(1)


def drawn_sizes(n: int = 600) -> np.ndarray:
    """|phi| of n patients: skewed, correlated, of different size."""
    rng = np.random.default_rng(11)
    common = rng.normal(size=(n, 1))
    values: np.ndarray = np.exp(0.6 * common + 0.7 * rng.normal(size=(n, 5)) + np.log([1.0, 0.6, 0.3, 0.2, 0.05]))
    return values


def share_of(size: np.ndarray) -> Shares:
    return share_of_means(float(len(size)), size.sum(axis=0), size.T @ size)


def hospitals(k: int, *, spread: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Shares of one modality at k hospitals, in turn above and below 0.4, and their variances."""
    rng = np.random.default_rng(k)
    return 0.4 + spread * np.where(np.arange(k) % 2, 1.1, -0.9), rng.uniform(4e-4, 4e-3, k)


def sums_of(share: np.ndarray, variance: np.ndarray, *, tau2: float = 0.0) -> dict[str, np.ndarray]:
    """What the hospitals' parts add up to."""
    parts = [
        between_sums(Shares(np.array([y]), np.array([v])), tau2=np.array([tau2]))
        for y, v in zip(share, variance, strict=True)
    ]
    return {name: np.asarray(np.sum([part[name] for part in parts], axis=0)) for name in parts[0]}


def combine(share: np.ndarray, variance: np.ndarray) -> tuple[float, float, Between]:
    tau2, i2 = tau_squared(sums_of(share, variance))
    return float(tau2[0]), float(i2[0]), combine_hospitals(sums_of(share, variance, tau2=float(tau2[0])), tau2=tau2)


# ------------------------------------------------------------------------------------------------- shares of one group


def test_share_is_the_part_of_the_summed_sizes() -> None:
    found = share_of(np.array([[1.0, 2.0, 1.0], [2.0, 4.0, 0.0]]))
    np.testing.assert_allclose(found.share, [0.3, 0.6, 0.1])


def test_variance_of_two_modalities_is_that_of_a_ratio_by_hand() -> None:
    """s = a / (a + b): var(s) = var(b' a - a' b) / (a' + b')^4 / n, with means a', b' (delta method)."""
    size = np.array([[1.0, 3.0], [2.0, 2.0], [4.0, 1.0], [1.0, 1.0]])

    found = share_of(size)

    mean = size.mean(axis=0)
    linear = mean[1] * size[:, 0] - mean[0] * size[:, 1]
    np.testing.assert_allclose(found.variance, np.var(linear, ddof=1) / mean.sum() ** 4 / 4, rtol=1e-12)


def test_interval_is_within_a_tenth_of_a_point_of_a_bootstrap_over_patients() -> None:
    size = drawn_sizes()
    rng = np.random.default_rng(0)

    interval = share_of(size).interval

    counts = rng.multinomial(len(size), np.full(len(size), 1 / len(size)), size=2000)
    sums = counts @ size
    shares = sums / sums.sum(axis=1, keepdims=True)
    se = np.diff(interval, axis=1)[:, 0] / 2 / norm.ppf(0.975)
    np.testing.assert_allclose(se, shares.std(axis=0, ddof=1), atol=0.0005)
    # ends by the bootstrap's own standard error: its percentiles have a Monte Carlo error of a tenth of a point
    half = norm.ppf(0.975) * shares.std(axis=0, ddof=1)
    expected = np.stack([share_of(size).share - half, share_of(size).share + half], axis=1)
    np.testing.assert_allclose(interval, expected, atol=0.001)


def test_shares_sum_to_one_and_their_interval_contains_them() -> None:
    found = share_of(drawn_sizes())
    assert found.share.sum() == pytest.approx(1.0, abs=1e-12)
    assert ((found.interval[:, 0] < found.share) & (found.share < found.interval[:, 1])).all()


def test_interval_stays_within_zero_and_one() -> None:
    found = share_of(np.array([[9.0, 0.0], [1.0, 0.4], [9.0, 0.0]]))
    assert found.interval.min() == 0.0
    assert found.interval.max() == 1.0


def test_only_modality_has_the_whole_share_without_doubt() -> None:
    found = share_of(drawn_sizes()[:, :1])
    np.testing.assert_allclose(found.interval, [[1.0, 1.0]], atol=1e-12)


@pytest.mark.parametrize("n", [0, 5])
def test_model_without_any_attribution_has_no_shares(n: int) -> None:
    found = share_of_means(float(n), np.zeros(2), np.zeros((2, 2)))
    assert np.isnan(found.share).all()
    assert np.isnan(found.variance).all()
    assert np.isnan(found.interval).all()


def test_one_patient_has_shares_and_no_interval() -> None:
    found = share_of(np.array([[1.0, 3.0]]))
    np.testing.assert_allclose(found.share, [0.25, 0.75])
    assert np.isnan(found.interval).all()


def test_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    found = mean_interval(4, values.sum(), np.square(values).sum())
    half = 1.959964 * values.std(ddof=1) / 2
    np.testing.assert_allclose(found, [4 - half, 4 + half], rtol=1e-6)


def test_interval_of_a_mean_needs_two_patients() -> None:
    assert np.isnan(mean_interval(1, 2.0, 4.0)).all()


# ---------------------------------------------------------------------------------------------------- between hospitals


@pytest.mark.parametrize("k", [2, 3, 8])
def test_spread_between_hospitals_is_that_of_statsmodels(k: int) -> None:
    """DerSimonian-Laird tau^2 and I^2; the random-effects mean; the Hartung-Knapp interval with k - 1 degrees."""
    share, variance = hospitals(k)
    reference = combine_effects(share, variance, method_re="dl", use_t=True)
    assert reference.tau2 > 0

    tau2, i2, between = combine(share, variance)

    assert tau2 == pytest.approx(reference.tau2, abs=1e-12)
    assert i2 == pytest.approx(reference.i2, abs=1e-12)
    assert between.k.tolist() == [k]
    assert between.mean[0] == pytest.approx(reference.mean_effect_re, abs=1e-12)
    hartung_knapp = reference.conf_int(use_t=True)[3]
    np.testing.assert_allclose(between.interval[0], np.clip(hartung_knapp, 0.0, 1.0), atol=1e-12)


def test_spread_that_chance_explains_is_none_and_hospitals_weigh_by_their_precision() -> None:
    share, variance = hospitals(8, spread=0.005)

    tau2, i2, between = combine(share, variance)

    assert (tau2, i2) == (0.0, 0.0)
    assert between.mean[0] == pytest.approx(np.average(share, weights=1 / variance), abs=1e-12)


def test_prediction_interval_is_that_of_the_formula() -> None:
    """Higgins et al. 2009: mean +- t(k - 2) sqrt(tau^2 + var(mean)), with Hartung and Knapp's variance of the mean."""
    share, variance = hospitals(8)
    tau2, _, between = combine(share, variance)

    w = 1 / (variance + tau2)
    mean = (w * share).sum() / w.sum()
    of_mean = (w * (share - mean) ** 2).sum() / (7 * w.sum())
    half = t.ppf(0.975, 6) * np.sqrt(tau2 + of_mean)
    np.testing.assert_allclose(between.prediction[0], [mean - half, mean + half], atol=1e-12)


def test_two_hospitals_have_an_interval_and_no_prediction() -> None:
    _, _, between = combine(np.array([0.30, 0.32]), np.array([1e-3, 1e-3]))
    assert between.mean[0] == pytest.approx(0.31)
    assert np.isfinite(between.interval).all()
    assert np.isnan(between.prediction).all()


def test_one_hospital_has_no_spread_and_no_intervals() -> None:
    tau2, i2 = tau_squared(sums_of(np.array([0.3]), np.array([1e-3])))
    assert np.isnan([*tau2, *i2]).all()
    between = combine_hospitals(sums_of(np.array([0.3]), np.array([1e-3])), tau2=np.zeros(1))
    assert between.mean[0] == pytest.approx(0.3)
    assert np.isnan(between.interval).all()
    assert np.isnan(between.prediction).all()


def test_no_hospital_has_no_mean() -> None:
    nothing = sums_of(np.array([np.nan]), np.array([np.nan]))
    assert np.isnan(tau_squared(nothing)[0]).all()
    assert np.isnan(combine_hospitals(nothing, tau2=ONE).mean).all()


def test_hospital_whose_variance_is_not_known_adds_nothing() -> None:
    share, variance = hospitals(3)
    with_unknown = sums_of(np.append(share, 0.9), np.append(variance, np.nan))
    for name, value in sums_of(share, variance).items():
        np.testing.assert_array_equal(with_unknown[name], value)


def test_hospitals_that_agree_exactly_have_no_spread() -> None:
    tau2, i2, between = combine(np.full(4, 0.25), np.full(4, 1e-3))
    assert (tau2, i2) == (0.0, 0.0)
    np.testing.assert_allclose(between.interval[0], [0.25, 0.25], atol=1e-7)


def test_variance_of_nothing_counts_as_a_tenth_of_a_point() -> None:
    parts = between_sums(Shares(np.ones(1), np.zeros(1)), tau2=ONE)
    assert parts["between/w"][0] == pytest.approx(1 / SMALLEST_VARIANCE)
    assert np.sqrt(SMALLEST_VARIANCE) == pytest.approx(0.001)


def test_spread_of_each_modality_is_its_own() -> None:
    rng = np.random.default_rng(3)
    share, variance = rng.uniform(0.1, 0.5, (5, 2)), rng.uniform(1e-4, 1e-3, (5, 2))
    parts = [between_sums(Shares(share[i], variance[i]), tau2=np.zeros(2)) for i in range(5)]
    both = tau_squared({name: np.asarray(np.sum([part[name] for part in parts], axis=0)) for name in parts[0]})
    for j in range(2):
        alone = tau_squared(sums_of(share[:, j], variance[:, j]))
        np.testing.assert_allclose([both[0][j], both[1][j]], [alone[0][0], alone[1][0]], rtol=1e-12)
