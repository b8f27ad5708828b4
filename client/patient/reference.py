"""A feature's value in the reference patients of a background, with which the patient's own is compared."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from shared_model.modalities.feature import Feature, is_known
from shared_model.model.fusion import MultimodalModel
from shared_model.schema import STATIC, Schema
from shared_model.shapley.game import Rows

_NOISE = 1e-5


def feature_kind(feature: Feature) -> str:
    """number, binary, category, or whole: a feature without a value of its own (an image, a pattern in time)."""
    if not feature.has_value:
        return "whole"
    return "binary" if feature.binary else "category" if feature.levels else "number"


def describe_reference(
    model: MultimodalModel, schema: Schema, *, modality: str, feature: Feature, rows: Rows
) -> dict[str, Any] | None:
    """A feature's median and quartiles, or share of each level, over the rows that have a value of it.

    Args:
        model: whose embeddings they are.
        schema: the study.
        modality: of the feature.
        feature: one of it.
        rows: of a background.

    Returns:
        For JSON; None for a feature that has no values.
    """
    if not feature.has_value:
        return None
    present = rows.present[modality].cpu().numpy()
    embedding = rows.embeddings[modality].float().cpu().numpy()[present]
    known = is_known(feature, embedding)
    columns = embedding[known][:, list(feature.columns)].astype(np.float64)
    described: dict[str, Any] = {"rows": len(present)}
    if feature.binary:
        shares = _shares(columns[:, 0] > feature.midpoint, ("0", "1"))
        return described | {"n": len(columns), "levels": shares}
    if feature.levels:
        return described | _describe_category(model, schema, feature, columns)
    values = _without_noise(feature.in_unit(columns[:, 0]), feature)
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist() if len(values) else (None, None, None)
    return described | {"n": len(values), "median": median, "quartiles": [low, high]}


def _without_noise(values: Float64[np.ndarray, "row"], feature: Feature) -> Float64[np.ndarray, "row"]:
    """Zero where the embedding's single precision has left a little of it."""
    return np.where(np.abs(values) < _NOISE * max(abs(feature.offset), abs(feature.slope)), 0.0, values)


def _shares(index: Bool[np.ndarray, "row"] | np.ndarray, levels: tuple[str, ...]) -> dict[str, float | None]:
    counts = np.bincount(index.astype(np.int64), minlength=len(levels))
    return {level: float(counts[i] / len(index)) if len(index) else None for i, level in enumerate(levels)}


def _describe_category(
    model: MultimodalModel, schema: Schema, feature: Feature, columns: Float64[np.ndarray, "row column"]
) -> dict[str, Any]:
    """Each row holds one level's row of the model's table; the table's last is "missing"."""
    position = [category.name for category in schema.categories].index(feature.name)
    table = model.encoders[STATIC].tables[position].weight  # type: ignore[union-attr,index]
    rows = table.detach().float().cpu().numpy().astype(np.float64)
    level = np.abs(columns[:, None, :] - rows[None]).sum(axis=2).argmin(axis=1)
    having = level[level < len(feature.levels)]
    return {"n": len(having), "levels": _shares(having, feature.levels)}
