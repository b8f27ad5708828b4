"""Judge what goes with the outcome and should not: a region of an image (a short cut), and missing values."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int64
from scipy.stats import fisher_exact, mannwhitneyu, norm, rankdata

from client.quality.comparison_basis import Bench
from shared_model.evaluation.auc_error import auc_standard_error
from shared_model.patient_arrays import PatientArrays
from shared_model.quality.checks import (
    LIMITS,
    MISSING_BY_OUTCOME,
    PATHOLOGY_AUC,
    REGION_EVENTS,
    REGION_Z,
    SHORT_CUT,
    SHORT_CUT_MARGIN,
    CheckFinding,
)
from shared_model.quality.image_measures import GRID
from shared_model.quality.measure import (
    KNOWN,
    PRESENCE,
    THUMBNAIL,
    THUMBNAIL_EVENTS,
    THUMBNAIL_OTHERS,
    Measured,
)
from shared_model.quality.measures import Moments
from shared_model.schema import STATIC

_EXACT = 20_000  # pairs of an event and a non-event


def judge_missing_by_outcome(bench: Bench, measured: Measured, outcome: Int8[np.ndarray, " row"]) -> list[CheckFinding]:
    """Modalities and columns that are missing more often for one outcome, by Fisher's exact test.

    Args:
        bench: what is judged and how strictly.
        measured: of the same patients.
        outcome: 0 or 1.
    """
    died = outcome == 1
    if not bench.rule.may_release(n=len(died), events=int(died.sum())):
        return []
    found = []
    columns = list(_known_columns(bench, measured))
    for where, known in columns:
        bench.count(MISSING_BY_OUTCOME, 1)
        lacking = [int((known[group] == 0).sum()) for group in (died, ~died)]
        sizes = [int(died.sum()), int((~died).sum())]
        table = [[n, size - n] for n, size in zip(lacking, sizes, strict=True)]
        more = lacking[0] / sizes[0] - lacking[1] / sizes[1]
        if abs(more) >= LIMITS[MISSING_BY_OUTCOME].amber and fisher_exact(table).pvalue <= bench.max_p(len(columns)):
            found += bench.find(MISSING_BY_OUTCOME, where, effect=abs(more), value=more)
    return found


def _known_columns(
    bench: Bench, measured: Measured
) -> Iterator[tuple[tuple[str, str], Float64[np.ndarray, " patient"]]]:
    """Where, and 1 for each patient who has it."""
    others = [name for name in bench.chosen if name != STATIC]
    for i, name in enumerate(others):
        yield (name, ""), measured[PRESENCE][:, i]
    if STATIC in bench.chosen:
        columns = [column.name for column in (*bench.schema.numbers, *bench.schema.categories)]
        for i, column in enumerate(columns):
            yield (STATIC, column), measured[f"{STATIC}/{KNOWN}"][:, i]


def judge_short_cuts(
    bench: Bench, measured: Measured, arrays: PatientArrays, rows: Int64[np.ndarray, " row"]
) -> list[CheckFinding]:
    """Of each image the region whose brightness tells the outcome best, if it tells more than a disease would.

    A marker goes with the outcome at one hospital, pathology at all: a region is red only where the others' images,
    by their sums, do not show the same.

    Args:
        bench: what is judged and how strictly.
        measured: of the same patients.
        arrays: all patients of the hospital.
        rows: which of them were measured.
    """
    found = []
    for name in (name for name in bench.chosen if name in bench.schema.images):
        died = arrays.outcome[rows[arrays.present[name][rows]]] == 1
        n, events = len(died), int(died.sum())
        if not bench.rule.may_release(n=n, events=events) or min(events, n - events) < REGION_EVENTS:
            continue
        bench.count(SHORT_CUT, GRID * GRID)
        found += _find_region(bench, name, measured[f"{name}/{THUMBNAIL}"], died)
    return found


def _find_region(
    bench: Bench, name: str, thumbnails: Float64[np.ndarray, "image cell"], died: Bool[np.ndarray, " image"]
) -> list[CheckFinding]:
    auc = region_auc(thumbnails, died)
    told = others_auc(bench, name)
    strength = np.maximum(auc, 1 - auc)
    elsewhere = np.full(len(auc), PATHOLOGY_AUC) if told is None else np.where(auc >= 0.5, told, 1 - told)
    limit, beyond = LIMITS[SHORT_CUT], strength - elsewhere
    error = auc_standard_error(np.maximum(elsewhere, 0.5), events=int(died.sum()), others=int((~died).sum()))
    beyond = np.where(beyond >= REGION_Z * error, beyond, 0.0)
    here_only = np.where(beyond >= SHORT_CUT_MARGIN, strength, 0.0)
    everywhere = np.where(elsewhere >= limit.amber - SHORT_CUT_MARGIN, strength, 0.0)
    if told is None or not here_only.any():
        limit = replace(limit, red=None)
    candidates = here_only if here_only.any() else everywhere
    best = int(candidates.argmax())
    sure = region_p(thumbnails[:, best], died) <= bench.max_p(GRID * GRID)
    if limit.grade(candidates[best]) == "green" or not sure:
        return []
    row, column = divmod(best, GRID)
    where = (name, f"row {row + 1}, column {column + 1} of {GRID}")
    return bench.find(SHORT_CUT, where, effect=float(strength[best]), value=float(auc[best]), limit=limit)


def region_auc(
    thumbnails: Float64[np.ndarray, "image cell"], died: Bool[np.ndarray, " image"]
) -> Float64[np.ndarray, " cell"]:
    """Probability that a region is brighter in an image of an event than in another; ties count half.

    Args:
        thumbnails: of the images.
        died: whether they are of events, some of them and not all.
    """
    n_events, n_others = int(died.sum()), int((~died).sum())
    ranks = np.asarray(rankdata(thumbnails, axis=0))[died].sum(axis=0)
    auc: Float64[np.ndarray, " cell"] = (ranks - n_events * (n_events + 1) / 2) / (n_events * n_others)
    return auc


def region_p(gray: Float64[np.ndarray, " image"], died: Bool[np.ndarray, " image"]) -> float:
    """Two-sided p value of the Mann-Whitney test.

    Exact while that is quick: with the few events of a hospital, the normal approximation sees no difference between
    8 of 8 marked deaths and chance.

    Args:
        gray: of one region.
        died: whether the images are of events, some of them and not all.
    """
    quick = int(died.sum()) * int((~died).sum()) <= _EXACT
    return float(mannwhitneyu(gray[died], gray[~died], method="exact" if quick else "asymptotic").pvalue)


def others_auc(bench: Bench, name: str) -> Float64[np.ndarray, " cell"] | None:
    """The same at the other hospitals, from their sums, as of two normal distributions; None without enough of them."""
    if not bench.others:
        return None
    events, rest = (Moments.read(bench.others, f"{name}/{part}") for part in (THUMBNAIL_EVENTS, THUMBNAIL_OTHERS))
    if events.n[0] < bench.rule.min_events or rest.n[0] < bench.rule.min_non_events:
        return None
    spread = np.sqrt((np.square(events.sd) + np.square(rest.sd)) / 2)
    distance = (events.mean - rest.mean) / np.maximum(spread, 1e-3)
    return np.asarray(norm.cdf(distance / np.sqrt(2)))
