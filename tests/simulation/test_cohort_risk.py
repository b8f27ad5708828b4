from functools import cache

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import roc_auc_score

from shared_model.schema import STATIC
from simulation.cohort.calibration import (
    SHARES,
    Population,
    calibrated_model,
    ceiling_of,
    sample_population,
    shares_of,
    site_intercepts,
)
from simulation.cohort.outcomes import draw_outcomes
from simulation.cohort.patients import SyntheticPatients, draw_patients
from simulation.cohort.ranking import expected_auc
from simulation.cohort.risk import MODALITIES, RiskCause, _moments, death_risk, expit, intercept_for
from simulation.cohort.sites import SyntheticSite, plan_sites
from simulation.scenarios import ALL

SITES = plan_sites(hospitals=5, patients=1600, equal_sizes=False)
OTHER_SEED = 99


def test_expected_auc_counts_ordered_pairs_and_half_of_ties() -> None:
    # Pairs (death, survivor): .4 > .1, .4 = .4, .8 > .1, .8 > .4: 3.5 of 4.
    assert expected_auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0.0, 1.0, 0.0, 1.0])) == pytest.approx(0.875)


def test_expected_auc_equals_scikit_learn_when_outcomes_are_drawn() -> None:
    rng = np.random.default_rng(1)
    score = np.round(rng.standard_normal(500), 1)
    outcome = (rng.random(500) < expit(score)).astype(float)
    assert expected_auc(score, outcome) == pytest.approx(roc_auc_score(outcome, score), abs=1e-12)


def test_intercept_gives_the_mortality() -> None:
    # expit(b) = 0.2 where all patients are alike.
    assert intercept_for(0.2, np.zeros(3)) == pytest.approx(np.log(0.25), abs=1e-9)


def test_linear_cause_is_predicted_by_what_is_expected_of_it() -> None:
    mean, variance = _moments(RiskCause("x", "hip", 1.0, None), np.array([0.9 * 2.0]), np.array([np.sqrt(0.1)]))
    assert mean[0] == pytest.approx(1.8)
    assert variance[0] == pytest.approx(0.1)


@pytest.mark.parametrize(("mean", "sd"), [(0.0, 1.0), (1.3, 0.3), (-2.0, 0.5), (3.0, 0.3)])
def test_severe_only_cause_has_the_moments_of_a_rectified_normal(mean: float, sd: float) -> None:
    z = np.random.default_rng(2).normal(mean, sd, 1_000_000)
    severity = np.maximum(0, z - 1.0)
    first, second = _moments(RiskCause("x", "hip", 1.0, 1.0), np.array([mean]), np.array([sd]))
    assert first[0] == pytest.approx(severity.mean(), abs=0.003)
    assert second[0] == pytest.approx(severity.var(), abs=0.003)


@cache
def other_patients() -> tuple[tuple[SyntheticSite, SyntheticPatients], ...]:
    """A large sample that calibration has not seen."""
    return tuple((site, draw_patients(site, patients=25 * site.patients, seed=OTHER_SEED)) for site in SITES)


@cache
def other_population() -> Population:
    model, parts = calibrated_model(), []
    for site, patients in other_patients():
        seen = model.observable(patients, patients.present)
        where = np.full(len(patients), float(site.index))
        parts.append((where, model.true(patients).logit, seen.logit, seen.variance))
    site_, true, observable, variance = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Population(site=site_, true=true, observable=observable, variance=variance)


@cache
def default_intercept() -> float:
    population = sample_population(calibrated_model(), SITES, scenario=ALL["default"], affected=-1)
    return site_intercepts(population, SITES, ALL["default"])[0]


def test_best_auc_and_mortality_hold_in_a_sample_that_calibration_has_not_seen() -> None:
    ceiling = ceiling_of(other_population(), dict.fromkeys(range(5), default_intercept()))
    assert 0.81 <= ceiling.auc <= 0.83
    assert ceiling.auc < ceiling.latent_auc
    assert ceiling.mortality == pytest.approx(0.078, abs=0.003)


def test_modality_shares_hold_in_a_sample_that_calibration_has_not_seen() -> None:
    shares = shares_of(other_population().observable)
    assert shares == pytest.approx(SHARES, abs=0.01)
    assert sorted(shares, key=lambda name: -shares[name]) == [STATIC, "hip", "chest", "vitals", "medications"]


def test_contributions_have_zero_mean() -> None:
    for logit in (other_population().true, other_population().observable):
        assert np.abs(logit.mean(axis=0)).max() < 0.02


@pytest.mark.parametrize("modality", MODALITIES)
def test_best_prediction_of_a_contribution_is_its_conditional_mean(modality: str) -> None:
    population, position = other_population(), MODALITIES.index(modality)
    seen, true = population.observable[:, position], population.true[:, position]
    third = np.digitize(seen, np.quantile(seen, [1 / 3, 2 / 3, 0.9]))
    for group in range(4):
        rows = third == group
        error = (true[rows] - seen[rows]).mean()
        assert abs(error) < 4 * true[rows].std() / np.sqrt(rows.sum()) + 0.002


def test_empty_cells_are_predicted_as_linear_regression_does() -> None:
    model = calibrated_model()
    site, patients = other_patients()[0]
    terms = model._terms(patients)
    position = [term.name for term in model.terms].index("albumin_g_l")
    seen = np.delete(terms, position, axis=1)
    predicted = LinearRegression().fit(seen, terms[:, position]).predict(seen)
    reference = seen.sum(axis=1) + predicted
    empty = {"albumin_g_l": np.ones(len(patients), dtype=bool)}
    only_albumin = SyntheticPatients(patients.columns, empty, patients.cause, patients.shown, patients.present)
    static = model.observable(only_albumin, patients.present).logit[:, 0] + model.term_mean.sum()
    # The model learns from all hospitals, the reference from one: slopes agree, case mix moves the mean a little.
    assert np.corrcoef(static, reference)[0, 1] > 0.9999
    assert np.abs(static - reference).mean() < 0.02
    assert site.index == 0


def test_best_risk_equals_simulation_over_what_is_not_known() -> None:
    model, rng = calibrated_model(), np.random.default_rng(3)
    draws = 200_000
    for shown in (-1.0, 0.5, 1.5, 3.0):
        logit = np.full(draws, -1.0)
        mean = variance = 0.0
        for cause in model.causes:
            reliability = 0.9 if cause.modality in ("hip", "chest") else 0.8
            z = rng.normal(reliability * shown, np.sqrt(1 - reliability), draws)
            severity = z if cause.threshold is None else np.maximum(0, z - cause.threshold)
            logit += cause.coefficient * severity
            first, second = _moments(cause, np.array([reliability * shown]), np.array([np.sqrt(1 - reliability)]))
            mean += cause.coefficient * first[0]
            variance += cause.coefficient**2 * second[0]
        best = death_risk(np.array([-1.0 + mean]), np.array([variance]))[0]
        assert best == pytest.approx(expit(logit).mean(), abs=0.005)


def test_logistic_regression_on_the_observable_causes_comes_near_the_best_auc() -> None:
    model, intercept, features, outcome, best = calibrated_model(), default_intercept(), [], [], []
    for site, patients in other_patients():
        drawn, _ = draw_outcomes(model, patients, site=site, intercept=intercept, seed=OTHER_SEED)
        seen = model.observable(patients, patients.present)
        columns = [np.where(patients.missing.get(name, False), np.nan, x) for name, x in patients.columns.items()]
        columns = [np.where(np.isnan(x), np.nanmean(x), x) for x in columns]
        for cause in model.causes:
            o = np.where(patients.present[cause.modality], patients.shown[cause.name], 0.0)
            columns.append(o if cause.threshold is None else np.maximum(0, o - cause.threshold))
        features.append(np.stack(columns, axis=1))
        outcome.append(drawn)
        best.append(death_risk(intercept + seen.logit.sum(axis=1), seen.variance))
    x, y, ceiling = np.concatenate(features), np.concatenate(outcome), np.concatenate(best)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    half = np.arange(len(y)) % 2 == 0
    reached = roc_auc_score(y[~half], LogisticRegression().fit(x[half], y[half]).predict_proba(x[~half])[:, 1])
    possible = roc_auc_score(y[~half], ceiling[~half])
    assert possible - 0.01 < reached < possible + 0.003


@pytest.mark.parametrize(("intercept", "deaths"), [(-40.0, 2), (40.0, 28)])
def test_hospital_of_thirty_has_two_deaths_and_two_survivors_whatever_the_risk(intercept: float, deaths: int) -> None:
    patients = draw_patients(SITES[0], patients=30, seed=0)
    outcome, turned = draw_outcomes(calibrated_model(), patients, site=SITES[0], intercept=intercept, seed=0)
    assert outcome.sum() == deaths
    assert turned == 2


@pytest.mark.parametrize(("patients", "deaths"), [(29, 1), (2, 1), (1, 0)])
def test_smaller_hospital_has_one_of_each_outcome_where_it_can(patients: int, deaths: int) -> None:
    drawn = draw_patients(SITES[0], patients=patients, seed=0)
    outcome, turned = draw_outcomes(calibrated_model(), drawn, site=SITES[0], intercept=-40.0, seed=0)
    assert outcome.sum() == turned == deaths


def test_outcomes_are_as_drawn_where_both_are_frequent() -> None:
    drawn = draw_patients(SITES[0], patients=20_000, seed=0)
    outcome, turned = draw_outcomes(calibrated_model(), drawn, site=SITES[0], intercept=-3.0, seed=0)
    risk = expit(-3.0 + calibrated_model().true(drawn).logit.sum(axis=1))
    assert turned == 0
    assert outcome.sum() == pytest.approx(risk.sum(), abs=4 * np.sqrt((risk * (1 - risk)).sum()))


def test_sizes_fall_with_rank_and_add_up() -> None:
    sizes = [site.patients for site in SITES]
    assert sum(sizes) == 1600
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 5


@pytest.mark.parametrize(("hospitals", "patients"), [(1, 1), (7, 7), (3, 100), (50, 61)])
def test_sizes_add_up_with_at_least_one_patient_each(hospitals: int, patients: int) -> None:
    for equal in (True, False):
        sizes = [s.patients for s in plan_sites(hospitals=hospitals, patients=patients, equal_sizes=equal)]
        assert sum(sizes) == patients
        assert min(sizes) >= 1


def test_probabilities_of_missing_lie_in_0_to_1_for_any_number_of_hospitals() -> None:
    for site in plan_sites(hospitals=500, patients=500, equal_sizes=True):
        shares = [*site.cell_missing.values(), *site.modality_missing.values(), site.male_share]
        assert all(0 <= share < 1 for share in shares)
