"""The features inside a modality: size, direction, dependence on their value, under the small-cell rule."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from server.protocol.differencing import Band, reveal_few
from shared_model.modalities.feature import Feature
from shared_model.privacy.suppression import SmallCellRule, histogram_bins_allowed, suppressed_row
from shared_model.shapley.explanation_quantities import number_or_none
from shared_model.shapley.shares import mean_interval
from shared_model.shapley.summary import PHI_EDGES

Sums = Mapping[str, np.ndarray]
MISSING, ALL = "missing", "all"


def describe_features(
    name: str,
    features: Sequence[Feature],
    total: Sums,
    rule: SmallCellRule,
    *,
    without_groups: Collection[str] = (),
    bands: Mapping[str, Sequence[Band]] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """Features of one modality, largest mean |phi| first; `presence` is the last entry.

    Args:
        name: of the modality.
        features: inside it.
        total: sums over hospitals.
        rule: small-cell rule; a feature that fewer patients have is suppressed, and so is a group of its values.
        without_groups: features whose groups of values must not be shown.
        bands: by feature, groups of the same patients that are shown elsewhere, cut at other values.
    """
    entries = []
    for j, feature in enumerate(features):
        groupless = feature.name in without_groups or _is_crossed(name, feature, j, total, rule, bands)
        entries.append(_describe_feature(name, feature, j, total, rule, groupless=groupless))
    entries.sort(key=lambda entry: -float(entry.get("mean_abs", -1.0)))
    n = max(int(total["feature-patients"]), 1)
    presence: dict[str, Any] = {
        "name": "presence",
        "mean_abs": float(total[f"{name}/presence-abs"] / n),
        "mean_phi": float(total[f"{name}/presence"] / n),
    }
    if rule.shown_count(int(total[f"{name}/n"][0]), n) is None:  # it may rest on those few alone
        presence = {"name": "presence", **suppressed_row()}
    return [*entries, presence]


def _is_crossed(
    name: str, feature: Feature, j: int, total: Sums, rule: SmallCellRule, bands: Mapping[str, Sequence[Band]]
) -> bool:
    """True if the groups of a feature's values, beside other groups of the same patients, would reveal a few."""
    if feature.name not in bands or not feature.edges or int(total["feature-patients"]) != int(total["n"][0]):
        return False  # of a sample of the patients nothing can be subtracted
    histogram = total[f"{name}/histogram"][j, : feature.n_groups]
    shown, sizes = _shown_groups(histogram, rule), histogram.sum(axis=1)
    ends = pairwise((-math.inf, *feature.in_unit(np.array(feature.edges)).tolist(), math.inf))
    own = [Band(*pair, int(n)) for pair, n, is_shown in zip(ends, sizes, shown, strict=False) if is_shown]
    return reveal_few(own, bands[feature.name], fewest=rule.min_patients)


def _describe_feature(
    name: str, feature: Feature, j: int, total: Sums, rule: SmallCellRule, *, groupless: bool
) -> dict[str, Any]:
    def of(part: str) -> float:
        return float(total[f"{name}/{part}"][j])

    n = of("n")
    missing = feature.n_groups - 1  # the group of the patients without a known value
    unknown = tuple(float(total[f"{name}/group-{part}"][j, missing]) for part in ("phi", "square"))
    histogram = total[f"{name}/histogram"][j, : feature.n_groups]
    groups = _shown_groups(histogram, rule) & (not groupless)
    counted = rule.shown_count(int(n), int(total["feature-patients"])) is not None
    told = _told_sums(name, feature, j, total, groups)
    # A mean of few values of phi would tell how many patients it is over.
    if told.n < rule.min_patients or (feature.has_few_values and not counted):
        return {"name": feature.name, **suppressed_row()}
    interval = mean_interval(told.n, told.size, told.square)
    varies = not feature.has_few_values or groups.sum() > 1
    return {
        "name": feature.name,
        "unit": feature.unit,
        "n": int(told.n) if counted else None,
        "mean_abs": told.size / told.n,
        "mean_abs_ci": [max(interval[0], 0.0), interval[1]] if varies and np.isfinite(interval).all() else None,
        "mean_phi": told.phi / told.n,
        "hidden_values": told.n < n,
        "se_sampling": of("se") / n,
        "correlation": None if feature.levels and not feature.binary else _correlation(of, unknown, rule),
        "groups": [] if groupless else _describe_groups(name, feature, j, total, groups, counted=counted),
        "histogram": _coarsen(histogram, groups, n=int(told.n), fewest=rule.min_patients)
        if counted
        else dict(suppressed_row()),
    }


@dataclass(frozen=True)
class _ToldSums:
    """Sums over the patients whom a feature's means are told of.

    Attributes:
        n: how many.
        size: of |phi|.
        phi: of phi.
        square: of phi squared.
    """

    n: float
    size: float
    phi: float
    square: float


def _told_sums(name: str, feature: Feature, j: int, total: Sums, shown: Bool[np.ndarray, "group"]) -> _ToldSums:
    """Sums of one feature: of levels and counts over the patients whose group of values is shown, else over all.

    With a linear head all patients who share a value share its phi, which anybody can compute from the published
    weights and background: a mean over all patients would be an equation for the counts of hidden values. Over the
    shown groups it tells what they tell. Of other numbers a mean tells the mean of the hidden values.
    """
    if not feature.has_few_values:
        return _ToldSums(*(float(total[f"{name}/{part}"][j]) for part in ("n", "abs", "phi", "square")))
    groups = np.flatnonzero(shown)
    n = float(total[f"{name}/histogram"][j, groups].sum())
    return _ToldSums(n, *(float(total[f"{name}/group-{part}"][j, groups].sum()) for part in ("abs", "phi", "square")))


def _correlation(of: Callable[[str], float], unknown: tuple[float, ...], rule: SmallCellRule) -> float | None:
    """Pearson correlation of value and phi over patients with a known value; None where one of them is constant.

    Sums travel in fixed point, so the variance of a constant arrives as 1e-5 (value) or 1e-8 (phi), of either sign.

    Args:
        of: sums over all patients.
        unknown: sums of phi and of its square over those without a known value.
        rule: of fewer patients nothing is told.
    """
    n = of("known")
    if n < rule.min_patients:
        return None
    z_mean, phi_mean = of("z") / n, (of("phi") - unknown[0]) / n
    z_variance = of("z-square") / n - z_mean**2
    phi_variance = (of("square") - unknown[1]) / n - phi_mean**2
    if z_variance <= 1e-4 or phi_variance <= 1e-7:
        return None
    return float(np.clip((of("z-phi") / n - z_mean * phi_mean) / np.sqrt(z_variance * phi_variance), -1.0, 1.0))


def _shown_groups(histogram: Float64[np.ndarray, "group bin"], rule: SmallCellRule) -> Bool[np.ndarray, "group"]:
    """Value groups that may be shown: enough patients, and never one alone hidden, which subtraction would give."""
    sizes = histogram.sum(axis=1)
    shown = np.asarray(sizes >= rule.min_patients)
    hidden = np.flatnonzero(~shown & (sizes > 0))
    if len(hidden) == 1 or (len(hidden) and sizes[hidden].sum() < rule.min_patients):
        candidates = np.flatnonzero(shown)
        if len(candidates):
            shown[candidates[np.argmin(sizes[candidates])]] = False
    return shown


def _describe_groups(
    name: str, feature: Feature, j: int, total: Sums, shown: Bool[np.ndarray, "group"], *, counted: bool
) -> list[dict[str, Any]]:
    """Mean and spread of phi for each group of values: the dependence curve."""
    sizes = total[f"{name}/histogram"][j].sum(axis=1)
    entries: list[dict[str, Any]] = []
    for g, label in enumerate(group_labels(feature)):
        if not shown[g]:
            entries.append({**label, **suppressed_row()})
            continue
        n, phi = float(sizes[g]), float(total[f"{name}/group-phi"][j, g])
        variance = max(float(total[f"{name}/group-square"][j, g]) / n - (phi / n) ** 2, 0.0)
        entries.append(
            {**label, "n": int(n) if counted else None, "mean_phi": phi / n, "sd_phi": float(np.sqrt(variance))}
        )
    return entries


def group_labels(feature: Feature) -> list[dict[str, Any]]:
    """What each group of values holds: a level, or a range in the feature's unit (null = open); last, missing ones."""
    if not feature.has_value:
        return [{"level": ALL}]
    if feature.levels:
        return [*({"level": level} for level in feature.levels), {"level": MISSING}]
    edges = [None, *(number_or_none(edge) for edge in feature.in_unit(np.array(feature.edges))), None]
    return [*({"range": list(ends)} for ends in pairwise(edges)), {"level": MISSING}]


def _coarsen(
    histogram: Float64[np.ndarray, "group bin"], shown: Bool[np.ndarray, "group"], *, n: int, fewest: int
) -> dict[str, Any]:
    """Counts by value group and phi: at most n / 10 cells, each of them empty or of `fewest` patients.

    Neighbouring bins of phi with the fewest patients are merged, as far as most patients can be told. A group with a
    smaller cell is left out: its size stands beside its mean, so a cell that is hidden alone is what the others lack.
    """
    groups = np.flatnonzero(shown)
    most_bins = histogram_bins_allowed(n) // max(len(groups), 1)
    counts, edges = histogram[groups], list(PHI_EDGES)
    found: dict[str, Any] = dict(suppressed_row())
    most_told = 0.0
    while edges:
        told = ((counts == 0) | (counts >= fewest)).all(axis=1)
        if len(edges) < most_bins and counts[told].sum() > most_told:
            most_told = counts[told].sum()
            cells = counts[told].astype(int).tolist()
            found = {"groups": groups[told].tolist(), "phi_edges": edges.copy(), "counts": cells}
        sizes = counts.sum(axis=0)
        i = int(np.argmin(sizes[:-1] + sizes[1:]))
        counts = np.concatenate([counts[:, :i], counts[:, i : i + 1] + counts[:, i + 1 : i + 2], counts[:, i + 2 :]], 1)
        edges.pop(i)
    return found
