"""The features of a modality: their columns in the embedding, and the grouping of their values.

Static variables and events enter the fusion as they are, and a series enters as summaries of its channels beside the
LSTM's last state. So each of these features owns some columns of the embedding; an image is one feature.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from shared_model.modalities.feature import Feature, is_known
from shared_model.modalities.registry import open_modality
from shared_model.model.fusion import MultimodalModel
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.schema import Schema


@dataclass(frozen=True)
class FeatureValues:
    """Values of a modality's features in some patients, as the summaries need them.

    Attributes:
        z: on the scale of the embedding; 0 where not known. Of a category it is 0: levels have no order.
        known: whether there is a value.
        group: index of the value group; the last one is "missing". 0 for a feature without a value.
    """

    z: Float[np.ndarray, "patient feature"]
    known: Bool[np.ndarray, "patient feature"]
    group: Int64[np.ndarray, "patient feature"]


def list_features(
    model: MultimodalModel, schema: Schema, preprocessing: Preprocessing
) -> dict[str, tuple[Feature, ...]]:
    """Features of each modality of the model."""
    return {
        name: open_modality(name, schema).features(model.encoders[name], preprocessing) for name in model.modalities
    }


def value_groups(
    features: tuple[Feature, ...],
    *,
    embedding: Float[np.ndarray, "patient column"],
    levels: Mapping[str, Int64[np.ndarray, "patient"]],
) -> FeatureValues:
    """Values of a modality's features in patients who have it.

    Args:
        features: of the modality.
        embedding: of these patients.
        levels: per category, the index of each patient's level; the one after the last means missing.
    """
    shape = (len(embedding), len(features))
    z, group = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    known = np.zeros(shape, dtype=bool)
    for j, feature in enumerate(features):
        if not feature.has_value:
            continue
        if feature.name in levels:
            group[:, j] = levels[feature.name]
            known[:, j] = group[:, j] < feature.n_groups - 1
            continue
        column = embedding[:, feature.columns[0]].astype(np.float64)
        known[:, j] = is_known(feature, embedding)
        z[:, j] = np.where(known[:, j], column, 0.0)
        bounds = (feature.midpoint,) if feature.levels else feature.edges
        group[:, j] = np.where(known[:, j], np.searchsorted(bounds, column, side="right"), feature.n_groups - 1)
    return FeatureValues(z, known, group)
