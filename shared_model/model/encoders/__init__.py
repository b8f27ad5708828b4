"""One encoder a modality: raw standardised inputs to an embedding vector. Each has `width`, its embedding's size."""

from shared_model.model.encoders.direct import EventsEncoder, StaticEncoder
from shared_model.model.encoders.image import ImageEncoder
from shared_model.model.encoders.series import SeriesEncoder

__all__ = ["EventsEncoder", "ImageEncoder", "SeriesEncoder", "StaticEncoder"]
