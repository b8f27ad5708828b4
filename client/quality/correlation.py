"""Find pairs of features so strongly correlated that they split the attribution between them.

A pair that is correlated everywhere belongs to the study: the coordinator lists it, and no hospital is amber for it.
One that is correlated here only, as when a column was filled from another, is this hospital's.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int64

from client.quality.comparison_basis import Bench
from shared_model.modalities.registry import open_modality
from shared_model.patient_arrays import PatientArrays
from shared_model.privacy.suppression import SmallCellRule
from shared_model.quality.checks import CORRELATED, CORRELATED_ELSEWHERE, FEWEST_PAIRS, LIMITS, CheckFinding
from shared_model.quality.measures import (
    CORRELATION_SITES,
    CORRELATION_WEIGHT,
    CORRELATION_Z,
    Z_LIMIT,
    Sums,
    list_pairs,
)
from shared_model.schema import Schema


def sum_correlations(
    arrays: PatientArrays,
    rows: Int64[np.ndarray, " row"],
    *,
    schema: Schema,
    chosen: tuple[str, ...],
    rule: SmallCellRule,
) -> Sums:
    """Fisher's z of each pair times its weight n - 3, and the weight: the total of both gives the mean correlation.

    Args:
        arrays: all patients of the hospital.
        rows: which of them to look at.
        schema: the study.
        chosen: the modalities to look at.
        rule: small-cell rule; pairs with fewer patients, and columns whose rarer side is smaller, have weight 0.
    """
    values = [open_modality(name, schema).correlated_values(arrays, rows) for name in chosen]
    columns = [_or_unknown(column, rule) for each in values for column in each.T]
    if not columns:
        return {name: np.zeros(0) for name in (CORRELATION_SITES, CORRELATION_WEIGHT, CORRELATION_Z)}
    r, n = correlate(np.stack(columns, axis=1))
    first, second = np.triu_indices(len(columns), k=1)
    r, n = r[first, second], n[first, second]
    weight = np.where(n >= max(FEWEST_PAIRS, rule.min_patients), n - 3.0, 0.0)
    limit = np.tanh(Z_LIMIT)
    return {
        CORRELATION_SITES: (weight > 0).astype(np.float64),
        CORRELATION_WEIGHT: weight,
        CORRELATION_Z: weight * np.arctanh(np.clip(r, -limit, limit)),
    }


def _or_unknown(values: Float64[np.ndarray, " patient"], rule: SmallCellRule) -> Float64[np.ndarray, " patient"]:
    """The column, or nothing where its rarer side is a small cell: one that is 1 for two patients singles them out."""
    known = values[~np.isnan(values)]
    _, counts = np.unique(known, return_counts=True)
    rarer = len(known) - int(counts.max(initial=0))
    return values if rarer >= rule.min_patients else np.full_like(values, np.nan)


def judge_correlations(bench: Bench) -> list[CheckFinding]:
    """Strong pairs: those of this hospital only, or where there is nobody to compare with, all."""
    weight, total = bench.own[CORRELATION_WEIGHT], bench.own[CORRELATION_Z]
    valid = weight > 0
    own = total / np.where(valid, weight, 1.0)
    strong = valid & (np.abs(np.tanh(own)) >= LIMITS[CORRELATED].amber)
    if bench.others:
        others_weight = bench.others[CORRELATION_WEIGHT]
        valid &= others_weight > 0.5
        elsewhere = bench.others[CORRELATION_Z] / np.where(valid, others_weight, 1.0)
        error = np.sqrt(1 / np.where(valid, weight, 1.0) + 1 / np.where(valid, others_weight, 1.0))
        strong &= valid & (np.abs(own - elsewhere) >= bench.min_z(len(own)) * error)
        strong &= np.abs(np.tanh(elsewhere)) < CORRELATED_ELSEWHERE
    bench.count(CORRELATED, int(valid.sum()))
    pairs, found = list_pairs(bench.schema, bench.chosen), []
    for k in np.flatnonzero(strong).tolist():
        r = float(np.tanh(own[k]))
        found += bench.find(CORRELATED, pairs[k], effect=abs(r), value=r)
    return found


def correlate(
    values: Float64[np.ndarray, "patient column"],
) -> tuple[Float64[np.ndarray, "column column"], Int64[np.ndarray, "column column"]]:
    """Pearson correlation of each pair over the patients who have both, and how many these are; 0 for constants."""
    known: Bool[np.ndarray, "patient column"] = ~np.isnan(values)
    n_known = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0.0).sum(axis=0) / n_known
    # Centred and scaled first, so that squares lose no digits.
    moved = np.where(known, values - mean, 0.0)
    moved /= np.maximum(np.sqrt(np.square(moved).sum(axis=0) / n_known), 1e-12)
    mask = known.astype(np.float64)
    n = mask.T @ mask
    count = np.maximum(n, 1)
    total, square = moved.T @ mask, np.square(moved).T @ mask
    covariance = moved.T @ moved / count - total * total.T / np.square(count)
    variance = np.maximum(square / count - np.square(total / count), 0.0)
    spread = np.sqrt(variance * variance.T)
    r = np.where(spread > 1e-9, covariance / np.where(spread > 1e-9, spread, 1.0), 0.0)
    return np.clip(r, -1.0, 1.0), n.astype(np.int64)
