from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from simulation.compare.paired import Difference, auc_difference, pair_tables


def table(logit: np.ndarray, outcome: np.ndarray, site: np.ndarray | None = None) -> pd.DataFrame:
    n = len(logit)
    names = np.full(n, "a") if site is None else site
    return pd.DataFrame({"site": names, "patient_id": [f"p{i}" for i in range(n)], "outcome": outcome, "logit": logit})


def draw(n: int = 300, *, seed: int = 0, gain: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcome, and two scores that both know something of it."""
    rng = np.random.default_rng(seed)
    outcome = (rng.random(n) < 0.2).astype(int)
    common = rng.normal(size=n) + outcome
    return outcome, common + gain * rng.normal(size=n), common + gain * rng.normal(size=n)


def test_difference_is_that_of_the_two_aucs() -> None:
    outcome, one, other = draw()
    found = auc_difference(pair_tables(table(one, outcome), table(other, outcome)), within_sites=False)
    assert found is not None
    assert found.difference == pytest.approx(roc_auc_score(outcome, one) - roc_auc_score(outcome, other), abs=1e-12)
    assert (found.n, found.events) == (300, outcome.sum())


def test_difference_by_hand_with_a_tie() -> None:
    """Two deaths, two survivors: the first score ranks 3 of 4 pairs rightly, the second 2 and ties 1."""
    outcome = np.array([1, 1, 0, 0])
    one, other = np.array([4.0, 2.0, 3.0, 1.0]), np.array([4.0, 1.0, 3.0, 1.0])
    found = auc_difference(pair_tables(table(one, outcome), table(other, outcome)), within_sites=False)
    assert found is not None
    assert found.difference == pytest.approx(3 / 4 - 2.5 / 4)
    # per death: 0 and 1/4 more survivors below; per survivor: 0 and 1/4; variance (1/32) / 2 twice
    half = 1.959964 * np.sqrt(2 * (1 / 32) / 2)
    assert (found.low, found.high) == pytest.approx((0.125 - half, 0.125 + half), rel=1e-5)


def test_a_score_compared_with_itself_differs_by_exactly_nothing() -> None:
    outcome, one, _ = draw()
    found = auc_difference(pair_tables(table(one, outcome), table(one + 5, outcome)), within_sites=False)
    assert found is not None
    assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    """Both scores are equally good, so the true difference is 0."""
    held = 0
    for seed in range(400):
        outcome, one, other = draw(200, seed=seed)
        found = auc_difference(pair_tables(table(one, outcome), table(other, outcome)), within_sites=False)
        assert found is not None
        held += found.low <= 0 <= found.high
    assert 0.92 <= held / 400 <= 0.98


@pytest.mark.parametrize("shift", [3.0, -3.0])
def test_clear_difference_has_an_interval_on_its_side_of_zero(shift: float) -> None:
    outcome, one, other = draw()
    found = auc_difference(
        pair_tables(table(one + shift * outcome, outcome), table(other, outcome)), within_sites=False
    )
    assert found is not None
    assert np.sign([found.low, found.difference, found.high]).tolist() == [np.sign(shift)] * 3


def test_difference_gives_no_verdict() -> None:
    assert [field.name for field in fields(Difference)] == ["n", "events", "difference", "low", "high"]


def test_difference_within_hospitals_counts_their_own_pairs_only() -> None:
    """A score that only knows the hospital is worthless within it, however well it ranks over all."""
    outcome, one, _ = draw()
    site = np.where(np.arange(300) < 150, "a", "b")
    knows_site = np.where(site == "a", 5.0, 0.0)
    paired = pair_tables(table(one, outcome, site), table(knows_site, outcome, site))
    found = auc_difference(paired, within_sites=True)
    assert found is not None
    parts = [(outcome[site == s], one[site == s]) for s in ("a", "b")]
    pairs = [y.sum() * (1 - y).sum() for y, _ in parts]
    expected = sum(p * roc_auc_score(y, x) for p, (y, x) in zip(pairs, parts, strict=True)) / sum(pairs) - 0.5
    assert found.difference == pytest.approx(expected, abs=1e-12)


def test_hospital_without_deaths_adds_no_pair_and_none_at_all_gives_nothing() -> None:
    outcome, one, other = draw()
    site = np.where(outcome == 1, "a", "b")
    paired = pair_tables(table(one, outcome, site), table(other, outcome, site))
    assert auc_difference(paired, within_sites=True) is None
    assert auc_difference(paired, within_sites=False) is not None


def test_only_patients_of_both_arms_are_compared() -> None:
    outcome, one, other = draw()
    paired = pair_tables(table(one, outcome), table(other, outcome).iloc[50:])
    found = auc_difference(paired, within_sites=False)
    assert found is not None
    assert found.n == 250
    expected = roc_auc_score(outcome[50:], one[50:]) - roc_auc_score(outcome[50:], other[50:])
    assert found.difference == pytest.approx(expected, abs=1e-12)
