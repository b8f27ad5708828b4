"""Coefficients and intercepts that give the cohort its mortality, its best possible AUC and its modality shares.

Solved once on a large latent sample of five reference hospitals, so they are the same for every seed, size and
scenario; the intercept alone is solved for the cohort's own hospitals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from shared_model.schema import STATIC
from simulation.cohort.patients import Mask, SyntheticPatients, Vector, draw_patients
from simulation.cohort.ranking import expected_auc, pair_counts
from simulation.cohort.risk import MODALITIES, Matrix, RiskModel, death_risk, intercept_for, uncalibrated
from simulation.cohort.sites import SyntheticSite, plan_sites
from simulation.cohort.study import CHEST, EVENTS, HIP, SERIES
from simulation.scenarios import Scenario

MORTALITY = 0.078
BEST_AUC = 0.82
#: Shares of mean absolute attribution of the best possible predictor; the paper's static share and its order.
SHARES = {STATIC: 0.70, SERIES: 0.03, EVENTS: 0.02, HIP: 0.145, CHEST: 0.105}
_SAMPLE = 40_000
_SAMPLE_SEED = 20_240_418


@dataclass(frozen=True)
class Population:
    """A large latent sample of a cohort's hospitals.

    Attributes:
        site: [patient], index of the hospital.
        true: [patient, modality], true contributions.
        observable: [patient, modality], best prediction of them.
        variance: [patient], what the observable data leave open.
    """

    site: Vector
    true: Matrix
    observable: Matrix
    variance: Vector


def shares_of(logit: Matrix) -> dict[str, float]:
    """Mean absolute deviation of each modality's contribution, as a share of their sum.

    With contributions that add up, the Shapley value of a modality is its contribution minus its mean, so these are
    the exact shares.

    Args:
        logit: [patient, modality] in the order of MODALITIES.
    """
    size = np.abs(logit - logit.mean(axis=0)).mean(axis=0)
    return dict(zip(MODALITIES, (size / size.sum()).tolist(), strict=True))


def informative_modalities(
    patients: SyntheticPatients, *, site: SyntheticSite, scenario: Scenario, affected: int
) -> Mapping[str, Mask]:
    """Per modality beside static, whether the patient has it and it shows its causes."""
    known = dict(patients.present)
    if site.index == affected:
        blank = np.zeros(len(patients), dtype=bool)
        if scenario.without_image:
            known[scenario.without_image] = blank
        if scenario.flat_series:
            known[SERIES] = blank
    return known


def sample_population(
    model: RiskModel, sites: Sequence[SyntheticSite], *, scenario: Scenario, affected: int
) -> Population:
    """Many patients of the cohort's hospitals, in proportion to the hospitals' sizes."""
    total = sum(site.patients for site in sites)
    parts = []
    for site in sites:
        patients = _sample(site, total)
        informative = informative_modalities(patients, site=site, scenario=scenario, affected=affected)
        seen = model.observable(patients, informative)
        where = np.full(len(patients), float(site.index))
        parts.append((where, model.true(patients).logit, seen.logit, seen.variance))
    site_, true, observable, variance = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Population(site=site_, true=true, observable=observable, variance=variance)


def _sample(site: SyntheticSite, total: int) -> SyntheticPatients:
    return draw_patients(site, patients=max(20, round(_SAMPLE * site.patients / total)), seed=_SAMPLE_SEED)


@cache
def calibrated_model() -> RiskModel:
    """The truth's coefficients: on the reference sample the shares are SHARES and the best possible AUC is BEST_AUC."""
    sites = plan_sites(hospitals=5, patients=1600, equal_sizes=False)
    model = uncalibrated([_sample(site, 1600) for site in sites])
    population = sample_population(model, sites, scenario=Scenario(""), affected=-1)
    size = np.abs(population.observable - population.observable.mean(axis=0)).mean(axis=0)
    factors = {name: SHARES[name] / amount for name, amount in zip(MODALITIES, size, strict=True)}
    model = model.scaled(factors)
    population = sample_population(model, sites, scenario=Scenario(""), affected=-1)
    scale = _scale_for_auc(population)
    return model.scaled(dict.fromkeys(MODALITIES, scale))


def _scale_for_auc(population: Population) -> float:
    """The common factor that makes the best possible AUC equal BEST_AUC, by bisection."""
    true, seen = population.true.sum(axis=1), population.observable.sum(axis=1)
    low, high = 0.5, 8.0
    while high - low > 1e-4:
        scale = (low + high) / 2
        intercept = intercept_for(MORTALITY, scale * true)
        auc = expected_auc(
            death_risk(intercept + scale * seen, scale**2 * population.variance),
            death_risk(intercept + scale * true, np.zeros_like(true)),
        )
        low, high = (scale, high) if auc < BEST_AUC else (low, scale)
    return (low + high) / 2


def site_intercepts(population: Population, sites: Sequence[SyntheticSite], scenario: Scenario) -> dict[int, float]:
    """Intercept per hospital: one for all that gives MORTALITY overall, or one each if the scenario sets mortality."""
    true = population.true.sum(axis=1)
    if scenario.mortality is None:
        return dict.fromkeys((site.index for site in sites), intercept_for(MORTALITY, true))
    mortality = np.linspace(*scenario.mortality, num=len(sites))
    return {
        site.index: intercept_for(float(rate), true[population.site == site.index])
        for site, rate in zip(sites, mortality, strict=True)
    }


@dataclass(frozen=True)
class Ceiling:
    """What no predictor can beat, over many patients.

    Attributes:
        auc: of the best predictor from observable data (it knows the hospital's intercept).
        auc_within: the same over pairs within a hospital.
        latent_auc: of the true risk itself.
        mortality: mean true risk.
    """

    auc: float
    auc_within: float
    latent_auc: float
    mortality: float


def ceiling_of(population: Population, intercepts: Mapping[int, float]) -> Ceiling:
    """The best possible results over a large latent sample."""
    start = np.array([intercepts[int(index)] for index in population.site])
    risk = death_risk(start + population.true.sum(axis=1), np.zeros_like(start))
    best = death_risk(start + population.observable.sum(axis=1), population.variance)
    within = [pair_counts(best[rows], risk[rows]) for rows in (population.site == index for index in intercepts)]
    return Ceiling(
        auc=expected_auc(best, risk),
        auc_within=sum(ordered for ordered, _ in within) / sum(pairs for _, pairs in within),
        latent_auc=expected_auc(risk, risk),
        mortality=float(risk.mean()),
    )
