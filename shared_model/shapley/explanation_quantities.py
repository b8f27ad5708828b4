"""The arrays of the explanation messages, by name, for a study and its settings; and a hospital's own row."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from shared_model.config import Settings
from shared_model.model.fusion import MultimodalModel
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.protocol.quantities import MAX_PATIENTS, Quantities, Quantity
from shared_model.schema import Schema
from shared_model.shapley.features import list_features
from shared_model.shapley.shares import SMALLEST_VARIANCE, Shares
from shared_model.shapley.strata import list_strata
from shared_model.shapley.summary import feature_quantities, modality_quantities


def explanation_quantities(
    model: MultimodalModel, schema: Schema, settings: Settings, *, preprocessing: Preprocessing, features: bool
) -> Quantities:
    """The arrays of an explain reply."""
    quantities = dict(modality_quantities(len(list_strata(schema, settings)), len(model.modalities)))
    if features:
        quantities |= feature_quantities(list_features(model, schema, preprocessing))
        quantities["feature-patients"] = Quantity((), MAX_PATIENTS, 0)
    return quantities | dict(spread_quantities(len(model.modalities)))


def spread_quantities(n_modalities: int) -> Quantities:
    """The arrays of a spread reply: one hospital each, so the limits are of one hospital."""
    weight = 1 / SMALLEST_VARIANCE
    limits = {"k": 1.0, "w": weight, "wy": weight, "wyy": weight, "ww": weight**2}
    return {f"between/{name}": Quantity((n_modalities,), limit, 0) for name, limit in limits.items()}


def site_row(modalities: tuple[str, ...], sums: Mapping[str, np.ndarray], shares: Shares) -> dict[str, Any]:
    """A hospital's own shares, as it may release them."""
    n = float(sums["n"][0])
    interval = shares.interval
    return {
        "n": int(n),
        "events": int(sums["events"][0]),
        "modalities": {
            name: {
                "share": number_or_none(shares.share[i]),
                "share_ci": [number_or_none(end) for end in interval[i]],
                "mean_abs": float(sums["abs"][0, i] / n),
            }
            for i, name in enumerate(modalities)
        },
    }


def number_or_none(value: float) -> float | None:
    """The number for JSON; None where it is not defined, e.g. the shares of a model that predicts a constant."""
    return float(value) if np.isfinite(value) else None
