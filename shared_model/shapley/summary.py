"""What a hospital sends of its explanations: sums over patients, so that adding hospitals equals pooling patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from shared_model.errors import ProtocolError
from shared_model.quantities import MAX_PATIENTS, Quantities, Quantity
from shared_model.shapley.exact import ModalityValues
from shared_model.shapley.features import Feature, FeatureValues

MAX_PHI = 32.0  # of one patient; a logit that moves by more is a diverged model
MAX_Z = 1000.0
# Inner edges of the attribution's groups, logit: fine near zero, where most features are.
PHI_EDGES = (-2.0, -1.0, -0.5, -0.2, -0.1, -0.05, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
FEATURE_SUMS = ("n", "known", "abs", "phi", "square", "z", "z-square", "z-phi", "variance")

Sums = dict[str, np.ndarray]


def modality_quantities(n_strata: int, n_modalities: int) -> Quantities:
    """The arrays of `modality_sums`."""
    s, m = n_strata, n_modalities
    each, pair = (s, m), (s, m, m)
    phi, square = MAX_PATIENTS * MAX_PHI, MAX_PATIENTS * MAX_PHI**2
    return {
        "n": Quantity((s,), MAX_PATIENTS, 0),
        "events": Quantity((s,), MAX_PATIENTS, 0),
        "present": Quantity(each, MAX_PATIENTS, 0),
        "phi": Quantity(each, phi),
        "abs": Quantity(each, phi, 0),
        "outer": Quantity(pair, square, 0),
        "abs-present": Quantity(each, phi, 0),
        "outer-present": Quantity(pair, square, 0),
        "abs-probability": Quantity(each, MAX_PATIENTS, 0),
        "local": Quantity(each, MAX_PATIENTS, 0),
        "local-square": Quantity(each, MAX_PATIENTS, 0),
        "alone": Quantity(each, phi, 0),
        "left-out": Quantity(each, phi, 0),
        "interactions": Quantity(pair, phi),
        "interactions-abs": Quantity(pair, phi, 0),
        "se-background": Quantity(each, phi, 0),
        "additivity-error": Quantity((s,), MAX_PATIENTS, 0),
    }


def check_counts(arrays: Mapping[str, np.ndarray]) -> None:
    """The counts of `modality_sums` do not contradict each other.

    Raises:
        ProtocolError: they are no counts, or of a part there are more than of the whole.
    """
    n, events, present = (arrays[name] for name in ("n", "events", "present"))
    whole = all(np.array_equal(count, np.rint(count)) for count in (n, events, present))
    if not whole or (events > n).any() or (n > n[0]).any() or (present > n[:, None]).any():
        raise ProtocolError("explanation: expected counts of patients that fit each other, got others.")


def modality_sums(
    values: ModalityValues,
    *,
    members: Bool[np.ndarray, "stratum patient"],
    outcome: Float64[np.ndarray, "patient"],
    additivity_error: Float64[np.ndarray, "patient"],
) -> Sums:
    """Sums over the patients of each stratum.

    Args:
        values: of some patients.
        members: who is in which stratum.
        outcome: 0 or 1.
        additivity_error: from `check_additivity`.
    """
    group = members.astype(np.float64)
    size = np.abs(values.phi)
    total = size.sum(axis=1, keepdims=True)
    local = size / np.where(total > 0, total, 1.0)
    size_present = size * values.present
    return {
        "n": group.sum(axis=1),
        "events": group @ outcome,
        "present": group @ values.present,
        "phi": group @ values.phi,
        "abs": group @ size,
        "outer": np.einsum("sp,pi,pj->sij", group, size, size),
        "abs-present": group @ size_present,
        "outer-present": np.einsum("sp,pi,pj->sij", group, size_present, size_present),
        "abs-probability": group @ np.abs(values.phi_probability),
        "local": group @ local,
        "local-square": group @ np.square(local),
        "alone": group @ np.abs(values.alone),
        "left-out": group @ np.abs(values.left_out),
        "interactions": np.einsum("sp,pij->sij", group, values.interactions),
        "interactions-abs": np.einsum("sp,pij->sij", group, np.abs(values.interactions)),
        "se-background": group @ values.se_background,
        "additivity-error": group @ additivity_error,
    }


@dataclass(frozen=True)
class FeaturePhi:
    """Feature values of the patients who have one modality.

    Attributes:
        phi: Owen values.
        variance: their squared standard errors.
        values: of the features.
    """

    phi: Float64[np.ndarray, "patient feature"]
    variance: Float64[np.ndarray, "patient feature"]
    values: FeatureValues


def feature_quantities(features: Mapping[str, Sequence[Feature]]) -> Quantities:
    """The arrays of `feature_sums` for every modality, and of `presence`."""
    phi, square = MAX_PATIENTS * MAX_PHI, MAX_PATIENTS * MAX_PHI**2
    limits = dict.fromkeys(FEATURE_SUMS, square) | {
        "n": MAX_PATIENTS,
        "known": MAX_PATIENTS,
        "abs": phi,
        "phi": phi,
        "z": MAX_PATIENTS * MAX_Z,
        "z-square": MAX_PATIENTS * MAX_Z**2,
        "z-phi": MAX_PATIENTS * MAX_Z * MAX_PHI,
    }
    quantities: dict[str, Quantity] = {}
    for name, own in features.items():
        n, groups = len(own), _n_groups(own)
        quantities |= {f"{name}/{part}": Quantity((n,), limit) for part, limit in limits.items()}
        quantities[f"{name}/group-phi"] = Quantity((n, groups), phi)
        quantities[f"{name}/group-square"] = Quantity((n, groups), square, 0)
        quantities[f"{name}/histogram"] = Quantity((n, groups, len(PHI_EDGES) + 1), MAX_PATIENTS, 0)
        quantities[f"{name}/presence-abs"] = Quantity((), phi, 0)
        quantities[f"{name}/presence"] = Quantity((), phi)
    return quantities


def feature_sums(
    name: str, features: Sequence[Feature], found: FeaturePhi, *, presence: Float64[np.ndarray, "anyone"]
) -> Sums:
    """Sums of one modality's features.

    Args:
        name: of the modality.
        features: inside it.
        found: of the patients who have it.
        presence: of all patients, the effect of having or lacking it.
    """
    phi, values = found.phi, found.values
    n, groups = len(features), _n_groups(features)
    known = values.known.astype(np.float64)
    sums = {
        "n": np.full(n, float(len(phi))),
        "known": known.sum(axis=0),
        "abs": np.abs(phi).sum(axis=0),
        "phi": phi.sum(axis=0),
        "square": np.square(phi).sum(axis=0),
        "z": (known * values.z).sum(axis=0),
        "z-square": (known * np.square(values.z)).sum(axis=0),
        "z-phi": (known * values.z * phi).sum(axis=0),
        "variance": found.variance.sum(axis=0),
    }
    histogram = np.zeros((n, groups, len(PHI_EDGES) + 1))
    by_group, by_group_square = np.zeros((n, groups)), np.zeros((n, groups))
    bins = np.searchsorted(PHI_EDGES, phi, side="right")
    for j in range(n):
        own = values.group[:, j]
        np.add.at(histogram[j], (own, bins[:, j]), 1.0)
        np.add.at(by_group[j], own, phi[:, j])
        np.add.at(by_group_square[j], own, np.square(phi[:, j]))
    named = {f"{name}/{part}": np.asarray(value) for part, value in sums.items()}
    return named | {
        f"{name}/group-phi": by_group,
        f"{name}/group-square": by_group_square,
        f"{name}/histogram": histogram,
        f"{name}/presence-abs": np.asarray(np.abs(presence).sum()),
        f"{name}/presence": np.asarray(presence.sum()),
    }


def _n_groups(features: Sequence[Feature]) -> int:
    return max(feature.n_groups for feature in features)
