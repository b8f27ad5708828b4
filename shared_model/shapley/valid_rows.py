"""Valid rows of the common background from the columns of a model's embedding, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from shared_model.model.fusion import MultimodalModel
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.preprocessing.statistics import compress_events
from shared_model.schema import STATIC, Schema
from shared_model.shapley.common_background import BIN_WIDTH, RARE, Columns, Draw
from shared_model.shapley.features import category_widths


def embedding_columns(model: MultimodalModel, schema: Schema) -> dict[str, Columns]:
    """Columns of each modality's embedding, in the model's order."""
    columns = {name: Columns(model.widths[name], {}) for name in model.modalities}
    if STATIC in columns:
        starts = 2 * len(schema.numbers) + np.cumsum([0, *category_widths(model)])
        categories = {
            category.name: (int(start), len(category.levels) + 1)
            for category, start in zip(schema.categories, starts, strict=False)
        }
        columns[STATIC] = Columns(model.widths[STATIC], categories)
    return columns


def known_columns(
    embeddings: Mapping[str, Float[np.ndarray, "patient _column"]], schema: Schema
) -> dict[str, Bool[np.ndarray, "patient _column"]]:
    """False where a static number is missing and its column holds the common fill."""
    known = {name: np.ones(value.shape, dtype=bool) for name, value in embeddings.items()}
    if STATIC in embeddings:
        n = len(schema.numbers)
        known[STATIC][:, :n] = embeddings[STATIC][:, n : 2 * n] < 0.5
    return known


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
        rows = values
        if name == STATIC:
            rows = _valid_static(values, draw.uniforms[name], sums, model, schema, preprocessing)
        elif name in schema.events:
            rows = _valid_events(values, schema, preprocessing, name)
        valid[name] = np.where(draw.present[name][:, None], rows, 0.0).astype(np.float32)
    return valid


def _valid_static(
    values: Float64[np.ndarray, "row column"],
    uniforms: Float64[np.ndarray, "row column"],
    sums: Mapping[str, np.ndarray],
    model: MultimodalModel,
    schema: Schema,
    preprocessing: Preprocessing,
) -> Float64[np.ndarray, "row column"]:
    rows, n = values.copy(), len(schema.numbers)
    mean, sd = np.asarray(preprocessing.number_mean), np.asarray(preprocessing.number_sd)
    missing = rows[:, n : 2 * n] > 0.5
    rows[:, n : 2 * n] = missing
    for i, column in enumerate(schema.numbers):
        low, high = ((np.asarray(column.range or (0.0, 1.0)) - mean[i]) / sd[i]).tolist()
        drawn = np.clip(rows[:, i], low, high)
        if column.kind == "binary":
            drawn = np.where(drawn > (low + high) / 2, high, low)
        rows[:, i] = np.where(missing[:, i], (preprocessing.number_fill[i] - mean[i]) / sd[i], drawn)
    start = 2 * n
    for i, category in enumerate(schema.categories):
        table = model.encoders[STATIC].tables[i].weight.detach().double().cpu().numpy()  # type: ignore[index,union-attr]
        counts = np.asarray(sums[f"levels/{category.name}"])
        rows[:, start : start + table.shape[1]] = table[_draw_levels(uniforms[:, start], counts, table[:, 0])]
        start += table.shape[1]
    return rows


def _draw_levels(
    uniforms: Float64[np.ndarray, "row"], counts: Float64[np.ndarray, "level"], order: Float64[np.ndarray, "level"]
) -> Int64[np.ndarray, "row"]:
    """Levels in proportion to their counts; ordered by their first column, so correlations keep their sign."""
    counts = np.where(counts < RARE, 0.0, counts) if counts.max() >= RARE else counts  # no rare level is drawn
    ranked = np.argsort(order, kind="stable")
    cumulative = np.cumsum(counts[ranked]) / max(counts.sum(), 1.0)
    return np.asarray(ranked[np.minimum(np.searchsorted(cumulative, uniforms, side="right"), len(counts) - 1)])


def _valid_events(
    values: Float64[np.ndarray, "row column"], schema: Schema, preprocessing: Preprocessing, name: str
) -> Float64[np.ndarray, "row column"]:
    """0 or 1 where an item was given or not; counts and doses at least 0."""
    events = schema.events[name]
    mean, sd = np.asarray(preprocessing.event_mean[name]), np.asarray(preprocessing.event_sd[name])
    compressed = np.maximum(mean + sd * values, 0.0)
    if events.aggregate == "any":
        compressed = (compressed > 0.5).astype(np.float64)
    elif events.aggregate == "count":
        compressed = compress_events(np.rint(np.expm1(compressed)), events)
    else:
        nearest = np.arcsinh(values) < np.arcsinh(-mean / sd) + BIN_WIDTH  # in the bin of "not given"
        compressed = np.where(nearest, 0.0, compressed)
    return np.asarray((compressed - mean) / sd)
