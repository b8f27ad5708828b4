"""Columns of each modality's embedding, known before there is a network: a launcher checks a study without torch."""

from __future__ import annotations

from shared_model.config import Settings
from shared_model.schema import STATIC, Schema

FEW_LEVELS = 8  # columns of a categorical column's embedding, at most
SUMMARIES = ("mean", "min", "max", "sd", "last", "measured")  # of each channel of a series


def embedding_width(name: str, schema: Schema, settings: Settings) -> int:
    """Of one modality, as the encoder that `build_encoder` gives has it."""
    if name == STATIC:
        return 2 * len(schema.numbers) + sum(min(FEW_LEVELS, len(column.levels)) for column in schema.categories)
    if name in schema.series:
        n_summaries = len(SUMMARIES) * len(schema.series[name].channels) if settings.series_summaries else 0
        return settings.series_embedding + n_summaries
    if name in schema.events:
        return len(schema.events[name].items)
    return settings.image_embedding
