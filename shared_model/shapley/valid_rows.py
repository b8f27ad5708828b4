"""Valid rows of the common background from the columns of a model's embedding, and back."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from shared_model.modalities.registry import open_modality
from shared_model.model.fusion import MultimodalModel
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.schema import Schema
from shared_model.shapley.common_background import Columns, Draw


def embedding_columns(model: MultimodalModel, schema: Schema) -> dict[str, Columns]:
    """Columns of each modality's embedding, in the model's order."""
    return {
        name: Columns(model.widths[name], open_modality(name, schema).categories(model.encoders[name]))
        for name in model.modalities
    }


def known_columns(
    embeddings: Mapping[str, Float[np.ndarray, "patient _column"]], schema: Schema
) -> dict[str, Bool[np.ndarray, "patient _column"]]:
    """False where a column holds a fill and not a value."""
    return {name: open_modality(name, schema).known_columns(value) for name, value in embeddings.items()}


def make_valid(
    draw: Draw,
    sums: Mapping[str, np.ndarray],
    *,
    model: MultimodalModel,
    schema: Schema,
    preprocessing: Preprocessing,
) -> dict[str, Float[np.ndarray, "row _column"]]:
    """Embeddings that patients could have: float32, zero where absent.

    Args:
        draw: rows of the copula.
        sums: that it was drawn from.
        model: whose embeddings they are; its category tables give the columns of a level.
        schema: the study.
        preprocessing: the common one.
    """
    valid = {}
    for name, values in draw.values.items():
        rows = open_modality(name, schema).make_valid(
            values, draw.uniforms[name], sums, encoder=model.encoders[name], preprocessing=preprocessing
        )
        valid[name] = np.where(draw.present[name][:, None], rows, 0.0).astype(np.float32)
    return valid
