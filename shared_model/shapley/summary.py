"""A hospital's explanation sums: over patients, so that adding hospitals equals pooling patients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from shared_model.errors import ProtocolError
from shared_model.modalities.feature import Feature
from shared_model.protocol.quantities import MAX_PATIENTS, Quantities, Quantity
from shared_model.shapley.exact import ModalityValues
from shared_model.shapley.features import FeatureValues
from shared_model.shapley.shares import SMALLEST_VARIANCE

MAX_PHI = 32.0  # of one patient; a logit that moves by more is a diverged model
MAX_Z = 1000.0
# Inner edges of the attribution's groups, logit: fine near zero, where most features are.
PHI_EDGES = (-2.0, -1.0, -0.5, -0.2, -0.1, -0.05, -0.02, -0.01, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
FEATURE_SUMS = ("n", "known", "abs", "phi", "square", "z", "z-square", "z-phi", "se")

_COUNTS = ("sites", "sites-present", "n", "events", "present")

Sums = dict[str, np.ndarray]


def modality_quantities(n_strata: int, n_modalities: int) -> Quantities:
    """The arrays of `modality_sums`."""
    s, m = n_strata, n_modalities
    each, pair = (s, m), (s, m, m)
    phi, square = MAX_PATIENTS * MAX_PHI, MAX_PATIENTS * MAX_PHI**2
    return {
        "sites": Quantity((s,), 1, 0),
        "sites-present": Quantity((m,), 1, 0),
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


def check_sums(arrays: Mapping[str, np.ndarray]) -> None:
    """The sums of one hospital do not contradict each other.

    Raises:
        ProtocolError: counts are none, a part is more than its whole, or values are larger than so many patients have.
    """
    n, present = arrays["n"], arrays["present"]
    each, slack = n[:, None], 1e-6 * (1 + n[:, None])
    k, w, wy, wyy = (arrays[f"between/{name}"] for name in ("k", "w", "wy", "wyy"))
    rules = [
        all(np.array_equal(arrays[name], np.rint(arrays[name])) for name in (*_COUNTS, "between/k")),
        (arrays["events"] <= n).all(),
        (n <= n[0]).all(),
        (present <= each).all(),
        (arrays["abs"] <= each * MAX_PHI + slack).all(),
        (np.abs(arrays["phi"]) <= arrays["abs"] + slack).all(),
        (arrays["abs-present"] <= arrays["abs"] + slack).all(),
        (np.einsum("sii->si", arrays["outer"]) <= each * MAX_PHI**2 + slack).all(),
        (arrays["local"].sum(axis=1) <= n + slack[:, 0]).all(),
        (arrays["local-square"] <= arrays["local"] + slack).all(),
        (arrays["abs-probability"] <= each + slack).all(),
        ((wy <= w) & (wyy <= wy) & (w <= k / SMALLEST_VARIANCE)).all(),
        *(_features_agree(arrays, name, slack=float(slack[0, 0])) for name in _modalities_with_features(arrays)),
    ]
    if not all(rules):
        raise ProtocolError("explanation: expected sums that fit the number of patients, got others.")


def _modalities_with_features(arrays: Mapping[str, np.ndarray]) -> list[str]:
    return [name.removesuffix("/histogram") for name in arrays if name.endswith("/histogram")]


def _features_agree(arrays: Mapping[str, np.ndarray], name: str, *, slack: float) -> bool:
    n, known, histogram = (arrays[f"{name}/{part}"] for part in ("n", "known", "histogram"))
    return bool(
        np.array_equal(histogram, np.rint(histogram))
        and np.array_equal(histogram.sum(axis=(1, 2)), n)
        and (n <= arrays["feature-patients"]).all()
        and arrays["feature-patients"] <= arrays["n"][0]
        and (known <= n).all()
        and (arrays[f"{name}/abs"] <= n * MAX_PHI + slack).all()
        and (np.abs(arrays[f"{name}/phi"]) <= arrays[f"{name}/abs"] + slack).all()
        and (np.abs(arrays[f"{name}/group-phi"]) <= arrays[f"{name}/group-abs"] + slack).all()
        and (arrays[f"{name}/group-abs"].sum(axis=1) <= arrays[f"{name}/abs"] + slack).all()
        and (arrays[f"{name}/square"] <= n * MAX_PHI**2 + slack).all()
        and (np.abs(arrays[f"{name}/z"]) <= known * MAX_Z + slack).all()
    )


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
        "sites": members.any(axis=1).astype(np.float64),
        "sites-present": values.present.any(axis=0).astype(np.float64),
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
        se: their standard errors.
        values: of the features.
    """

    phi: Float64[np.ndarray, "patient feature"]
    se: Float64[np.ndarray, "patient feature"]
    values: FeatureValues


def feature_quantities(features: Mapping[str, Sequence[Feature]]) -> Quantities:
    """The arrays of `feature_sums` for every modality, and of `presence`."""
    phi, square = MAX_PATIENTS * MAX_PHI, MAX_PATIENTS * MAX_PHI**2
    limits = {
        "n": (MAX_PATIENTS, 0),
        "known": (MAX_PATIENTS, 0),
        "abs": (phi, 0),
        "phi": (phi, -phi),
        "square": (square, 0),
        "z": (MAX_PATIENTS * MAX_Z, -MAX_PATIENTS * MAX_Z),
        "z-square": (MAX_PATIENTS * MAX_Z**2, 0),
        "z-phi": (MAX_PATIENTS * MAX_Z * MAX_PHI, -MAX_PATIENTS * MAX_Z * MAX_PHI),
        "se": (phi, 0),
    }
    quantities: dict[str, Quantity] = {}
    for name, own in features.items():
        n, groups = len(own), _n_groups(own)
        quantities |= {f"{name}/{part}": Quantity((n,), *limit) for part, limit in limits.items()}
        quantities[f"{name}/group-phi"] = Quantity((n, groups), phi)
        quantities[f"{name}/group-abs"] = Quantity((n, groups), phi, 0)
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
        "se": found.se.sum(axis=0),
    }
    histogram = np.zeros((n, groups, len(PHI_EDGES) + 1))
    by_group, by_group_abs, by_group_square = (np.zeros((n, groups)) for _ in range(3))
    bins = np.searchsorted(PHI_EDGES, phi, side="right")
    for j in range(n):
        own = values.group[:, j]
        np.add.at(histogram[j], (own, bins[:, j]), 1.0)
        np.add.at(by_group[j], own, phi[:, j])
        np.add.at(by_group_abs[j], own, np.abs(phi[:, j]))
        np.add.at(by_group_square[j], own, np.square(phi[:, j]))
    named = {f"{name}/{part}": np.asarray(value) for part, value in sums.items()}
    return named | {
        f"{name}/group-phi": by_group,
        f"{name}/group-abs": by_group_abs,
        f"{name}/group-square": by_group_square,
        f"{name}/histogram": histogram,
        f"{name}/presence-abs": np.asarray(np.abs(presence).sum()),
        f"{name}/presence": np.asarray(presence.sum()),
    }


def _n_groups(features: Sequence[Feature]) -> int:
    return max(feature.n_groups for feature in features)
