"""The encoder of each modality of a study."""

from __future__ import annotations

from torch import nn

from shared_model.config import Settings
from shared_model.model.encoders.direct import EventsEncoder, StaticEncoder
from shared_model.model.encoders.image import ImageEncoder
from shared_model.model.encoders.series import SeriesEncoder
from shared_model.schema import STATIC, Schema


def build_encoder(name: str, schema: Schema, settings: Settings) -> nn.Module:
    """The encoder of one modality with random weights; it has `width`."""
    if name == STATIC:
        n_levels = [len(column.levels) for column in schema.categories]
        return StaticEncoder(n_numbers=2 * len(schema.numbers), n_levels=n_levels)
    if name in schema.series:
        return SeriesEncoder(
            n_channels=len(schema.series[name].channels),
            hidden=settings.series_embedding,
            summaries=settings.series_summaries,
        )
    if name in schema.events:
        return EventsEncoder(n_items=len(schema.events[name].items))
    return ImageEncoder(architecture=settings.image_encoder, width=settings.image_embedding, skip=settings.image_skip)
