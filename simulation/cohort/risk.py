"""The truth: log-odds of death = intercept + sum over modalities of what that modality contributes.

Static columns contribute terms (linear, steps, two interactions). A cause z shown by another modality contributes
`coefficient * z` (linear) or `coefficient * max(0, z - threshold)` (only severe cases matter, as with a large
effusion), centred at zero mean. What can be observed is o = z + noise, so z | o ~ N(r o, 1 - r) with reliability r =
1 / var(o), and the best prediction of a contribution is its mean under that normal: `r o` for a linear cause, the
mean of a rectified normal for a severe-only cause.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shared_model.schema import STATIC
from simulation.cohort.patients import RELIABILITY, Mask, SyntheticPatients, Vector
from simulation.cohort.study import CHEST, EVENTS, HIP, SERIES

MODALITIES = (STATIC, SERIES, EVENTS, HIP, CHEST)
Matrix = NDArray[np.float64]

_ERF = np.frompyfunc(math.erf, 1, 1)
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(21)


@dataclass(frozen=True)
class Term:
    """One additive part of the static contribution, in log-odds: coefficient * value(columns).

    Attributes:
        name: what it is, e.g. `age_years`.
        columns: the static columns it needs.
        coefficient: log-odds per unit.
        unit: of the value.
        value: from the static columns to the value.
    """

    name: str
    columns: tuple[str, ...]
    coefficient: float
    unit: str
    value: Callable[[Mapping[str, Vector]], Vector]


@dataclass(frozen=True)
class RiskCause:
    """One cause shown by an image, the vitals or the medications.

    Attributes:
        name: what it is.
        modality: which shows it.
        coefficient: log-odds per standard deviation of the cause (beyond the threshold, where it has one).
        threshold: None = linear; else only the part above it matters, in standard deviations.
    """

    name: str
    modality: str
    coefficient: float
    threshold: float | None


def _column(name: str, coefficient: float, unit: str) -> Term:
    return Term(name, (name,), coefficient, unit, lambda columns: columns[name])


def _is_level(name: str, level: int, coefficient: float, label: str) -> Term:
    return Term(
        f"{name}={label}", (name,), coefficient, "1 if so", lambda columns: (columns[name] == level).astype(float)
    )


def _log(values: Vector) -> Vector:
    return np.asarray(np.log(values), dtype=np.float64)


# Before calibration: only the ratios inside a modality matter.
_TERMS = (
    _column("age_years", 0.060, "per year"),
    _column("male", 0.50, "1 if so"),
    _column("asa_class", 0.50, "per class"),
    _column("mobility", 0.22, "per level"),
    _is_level("residence", 2, 0.35, "nursing_home"),
    _column("dementia", 0.35, "1 if so"),
    _column("heart_failure", 0.45, "1 if so"),
    _column("copd", 0.30, "1 if so"),
    _column("malignancy", 0.50, "1 if so"),
    _column("haemoglobin_g_l", -0.013, "per g/L"),
    _column("albumin_g_l", -0.055, "per g/L"),
    Term(
        "ln creatinine_umol_l", ("creatinine_umol_l",), 0.55, "per ln(umol/L)", lambda c: _log(c["creatinine_umol_l"])
    ),
    Term("ln(1 + crp_mg_l)", ("crp_mg_l",), 0.12, "per ln(mg/L)", lambda c: _log(1 + c["crp_mg_l"])),
    Term(
        "hours_to_surgery>36",
        ("hours_to_surgery",),
        0.35,
        "1 if so",
        lambda c: (c["hours_to_surgery"] > 36).astype(float),
    ),
    Term(
        "dementia x nursing_home",
        ("dementia", "residence"),
        0.25,
        "1 if both",
        lambda c: c["dementia"] * (c["residence"] == 2),
    ),
    Term(
        "heart_failure x haemoglobin_g_l<100",
        ("heart_failure", "haemoglobin_g_l"),
        0.40,
        "1 if both",
        lambda c: c["heart_failure"] * (c["haemoglobin_g_l"] < 100),
    ),
)
_CAUSES = (
    RiskCause("displacement", HIP, 1.00, 1.0),
    RiskCause("bone_loss", HIP, 0.08, None),
    RiskCause("opacity", CHEST, 1.00, 1.0),
    RiskCause("heart_width", CHEST, 0.08, None),
    RiskCause("hypotension", SERIES, 1.00, 0.5),
    RiskCause("vasopressor_need", EVENTS, 1.00, 0.5),
)


@dataclass(frozen=True)
class Contributions:
    """Per modality the contribution to the log-odds, in the order of MODALITIES.

    Attributes:
        logit: [patient, modality].
        variance: [patient], what is left to know about the sum; zero for the truth.
    """

    logit: Matrix
    variance: Vector


@dataclass(frozen=True)
class RiskModel:
    """Every coefficient of the truth but the intercept.

    Attributes:
        terms: of the static columns.
        causes: of the other modalities.
        term_mean: mean of each term's contribution over the reference population.
        term_covariance: their covariance there; it predicts the terms whose cells are empty.
    """

    terms: tuple[Term, ...]
    causes: tuple[RiskCause, ...]
    term_mean: Vector
    term_covariance: Matrix

    def scaled(self, factors: Mapping[str, float]) -> RiskModel:
        """The same model with each modality's coefficients times its factor."""
        static = factors[STATIC]
        causes = [
            replace(cause, coefficient=float(cause.coefficient * factors[cause.modality])) for cause in self.causes
        ]
        return RiskModel(
            terms=tuple(replace(term, coefficient=float(term.coefficient * static)) for term in self.terms),
            causes=tuple(causes),
            term_mean=self.term_mean * static,
            term_covariance=self.term_covariance * static**2,
        )

    @property
    def centre(self) -> dict[str, float]:
        """Per modality, the mean of its sum of coefficient * value, which contributions leave out."""
        means = {STATIC: float(self.term_mean.sum())}
        for cause in self.causes:
            means[cause.modality] = means.get(cause.modality, 0.0) + cause.coefficient * _prior_mean(cause)
        return {name: means[name] for name in MODALITIES}

    def true(self, patients: SyntheticPatients) -> Contributions:
        """Contributions of the causes themselves."""
        parts = {STATIC: self._terms(patients).sum(axis=1) - self.term_mean.sum()}
        for cause in self.causes:
            part = cause.coefficient * (_severity(cause, patients.cause[cause.name]) - _prior_mean(cause))
            parts[cause.modality] = parts.get(cause.modality, 0.0) + part
        return Contributions(np.stack([parts[name] for name in MODALITIES], axis=1), np.zeros(len(patients)))

    def observable(self, patients: SyntheticPatients, informative: Mapping[str, Mask]) -> Contributions:
        """Best prediction of each contribution from what a hospital recorded.

        Missing cells are predicted from the other terms of the patient (best linear prediction).

        Args:
            patients: of one hospital.
            informative: per modality beside static, whether the patient has it and it shows its causes.
        """
        static, variance = self._observable_static(patients)
        parts = {STATIC: static}
        for cause in self.causes:
            mean, left = _posterior_moments(cause, patients.shown[cause.name], informative[cause.modality])
            part = cause.coefficient * (mean - _prior_mean(cause))
            parts[cause.modality] = parts.get(cause.modality, 0.0) + part
            variance = variance + cause.coefficient**2 * left
        return Contributions(np.stack([parts[name] for name in MODALITIES], axis=1), variance)

    def _terms(self, patients: SyntheticPatients) -> Matrix:
        return np.stack([term.coefficient * term.value(patients.columns) for term in self.terms], axis=1)

    def _observable_static(self, patients: SyntheticPatients) -> tuple[Vector, Vector]:
        deviation = self._terms(patients) - self.term_mean
        empty = np.zeros(deviation.shape, dtype=bool)
        for position, term in enumerate(self.terms):
            for column in term.columns:
                if column in patients.missing:
                    empty[:, position] |= patients.missing[column]
        variance = np.zeros(len(patients))
        patterns, which = np.unique(empty, axis=0, return_inverse=True)
        for number, gone in enumerate(patterns):
            if gone.any():
                rows = which == number
                seen = ~gone
                weights = np.linalg.solve(
                    self.term_covariance[np.ix_(seen, seen)], self.term_covariance[np.ix_(seen, gone)]
                )
                deviation[np.ix_(rows, gone)] = deviation[np.ix_(rows, seen)] @ weights
                left = self.term_covariance[np.ix_(gone, gone)] - self.term_covariance[np.ix_(gone, seen)] @ weights
                variance[rows] = left.sum()
        return deviation.sum(axis=1), variance


def uncalibrated(reference: list[SyntheticPatients]) -> RiskModel:
    """The model before scaling, with the moments of its static terms over the reference population."""
    model = RiskModel(_TERMS, _CAUSES, np.zeros(len(_TERMS)), np.eye(len(_TERMS)))
    terms = np.concatenate([model._terms(patients) for patients in reference])  # noqa: SLF001
    return replace(model, term_mean=terms.mean(axis=0), term_covariance=np.cov(terms, rowvar=False))


def expit(logit: Matrix) -> Matrix:
    """Probability of log-odds."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logit)))


def death_risk(logit: Vector, variance: Vector) -> Vector:
    """Probability of death when the log-odds are normal: the integral of expit over N(logit, variance).

    Gauss-Hermite quadrature with 21 nodes. The remaining uncertainty is a sum of several small parts, of which the
    severe-only causes are not normal; the error against exact integration is below 0.005 (tested).
    """
    sd = np.sqrt(variance)[:, None]
    return np.asarray(expit(logit[:, None] + sd * _NODES) @ (_WEIGHTS / _WEIGHTS.sum()))


def intercept_for(mortality: float, logit: Vector) -> float:
    """The intercept b with mean(expit(b + logit)) = mortality, by bisection to 1e-10."""
    low, high = -30.0, 30.0
    while high - low > 1e-10:
        middle = (low + high) / 2
        low, high = (middle, high) if expit(middle + logit).mean() < mortality else (low, middle)
    return (low + high) / 2


def _severity(cause: RiskCause, z: Vector) -> Vector:
    return z if cause.threshold is None else np.maximum(0.0, z - cause.threshold)


def _prior_mean(cause: RiskCause) -> float:
    return float(_moments(cause, np.zeros(1), np.ones(1))[0][0])


def _posterior_moments(cause: RiskCause, shown: Vector, informative: Mask) -> tuple[Vector, Vector]:
    reliability = RELIABILITY[cause.modality]
    return _moments(
        cause,
        np.where(informative, reliability * shown, 0.0),
        np.sqrt(np.where(informative, 1 - reliability, 1.0)),
    )


def _moments(cause: RiskCause, mean: Vector, sd: Vector) -> tuple[Vector, Vector]:
    """Mean and variance of the severity of a cause that is N(mean, sd ** 2); if thresholded, of a rectified normal."""
    if cause.threshold is None:
        return mean, sd**2
    above = mean - cause.threshold
    density = np.exp(-0.5 * (above / sd) ** 2) / np.sqrt(2 * np.pi)
    tail = 0.5 * (1 + np.asarray(_ERF(above / sd / math.sqrt(2)), dtype=float))
    first = above * tail + sd * density
    second = (above**2 + sd**2) * tail + above * sd * density
    return first, np.maximum(0.0, second - first**2)
