"""Results as shap's Explanation, so that its plots work on them, and as tidy tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float64

from shared_model.modalities.feature import Feature, is_known
from shared_model.shapley.exact import ModalityValues
from shared_model.shapley.feature_values import FeatureTable
from shared_model.shapley.game import Rows

if TYPE_CHECKING:
    import shap

PRESENCE = "presence"


def modality_explanation(values: ModalityValues) -> shap.Explanation:
    """Exact modality values (log odds) for shap's bar, beeswarm and waterfall plots; data is 1 where present."""
    import shap  # noqa: PLC0415 - slow, and an extra

    return shap.Explanation(
        values=values.phi,
        base_values=np.full(len(values), values.base_logit),
        data=values.present.astype(np.float64),
        feature_names=list(values.modalities),
        output_names="log odds",
    )


def feature_explanation(
    values: ModalityValues,
    tables: Mapping[str, FeatureTable],
    *,
    features: Mapping[str, Sequence[Feature]],
    patients: Rows,
) -> shap.Explanation:
    """Owen values of all features and presences (log odds); data holds values in the features' units, NaN for none."""
    names, phi, data = [], [], []
    for name, table in tables.items():
        embedding = patients.embeddings[name].double().cpu().numpy()
        present = patients.present[name].cpu().numpy()
        for j, feature in enumerate(features[name]):
            names.append(f"{name}: {feature.name}")
            phi.append(table.phi[:, j])
            data.append(np.where(present, _in_unit(feature, embedding), np.nan))
        names.append(f"{name}: {PRESENCE}")
        phi.append(table.presence)
        data.append(present.astype(np.float64))
    import shap  # noqa: PLC0415 - slow, and an extra

    return shap.Explanation(
        values=np.stack(phi, axis=1),
        base_values=np.full(len(values), values.base_logit),
        data=np.stack(data, axis=1),
        feature_names=names,
        output_names="log odds",
    )


def modality_frame(values: ModalityValues, *, patient_ids: Sequence[str]) -> pd.DataFrame:
    """One row a patient and modality."""
    n, m = values.phi.shape
    return pd.DataFrame(
        {
            "patient_id": np.repeat(np.asarray(patient_ids, dtype=object), m),
            "modality": list(values.modalities) * n,
            "present": values.present.ravel(),
            "phi": values.phi.ravel(),
            "phi_probability": values.phi_probability.ravel(),
            "se_background": values.se_background.ravel(),
            "logit": np.repeat(values.logit, m),
            "base_logit": values.base_logit,
            "background_id": values.background_id,
        }
    )


def feature_frame(
    tables: Mapping[str, FeatureTable], *, features: Mapping[str, Sequence[Feature]], patient_ids: Sequence[str]
) -> pd.DataFrame:
    """One row a patient and feature; `presence` is a feature of each modality."""
    parts = []
    for name, table in tables.items():
        labels = [*(feature.name for feature in features[name]), PRESENCE]
        units = [*(feature.unit for feature in features[name]), ""]
        phi = np.concatenate([table.phi, table.presence[:, None]], axis=1)
        se = np.concatenate([table.se, np.zeros((len(phi), 1))], axis=1)
        parts.append(
            pd.DataFrame(
                {
                    "patient_id": np.repeat(np.asarray(patient_ids, dtype=object), len(labels)),
                    "modality": name,
                    "feature": labels * len(phi),
                    "unit": units * len(phi),
                    "phi": phi.ravel(),
                    "se": se.ravel(),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _in_unit(feature: Feature, embedding: Float64[np.ndarray, "patient column"]) -> Float64[np.ndarray, "patient"]:
    """Values of a feature with an order; NaN where missing, for a category and for a feature without a value."""
    if not (feature.edges or feature.binary):
        return np.full(len(embedding), np.nan)
    value = feature.in_unit(embedding[:, feature.columns[0]])
    return np.where(is_known(feature, embedding), value, np.nan)
