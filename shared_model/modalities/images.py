"""Images: one radiograph a patient, through a residual network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from shared_model.modalities.feature import Feature
from shared_model.modalities.modality import Modality, Rows, Sums
from shared_model.modalities.moments import mean_and_sd
from shared_model.patient_arrays import PatientArrays
from shared_model.protocol.quantities import MAX_PATIENTS, Quantities, Quantity
from shared_model.quality.image_measures import GRAY_LEVELS, GRID, PIXELS, measure_images
from shared_model.quality.measure import (
    LOG_LIMIT,
    PIXEL,
    THUMBNAIL,
    THUMBNAIL_EVENTS,
    THUMBNAIL_OTHERS,
    Measure,
    Measured,
)
from shared_model.schema import Images, Schema

if TYPE_CHECKING:
    from torch import nn

    from shared_model.config import Settings
    from shared_model.preprocessing.standardisation import Preprocessing
    from shared_model.preprocessing.statistics import StatisticsFrame

WHOLE_IMAGE = "image"


class ImageModality(Modality):
    """One kind of radiograph."""

    kind = "images"
    part_type = Images

    def __init__(self, name: str, schema: Schema) -> None:
        super().__init__(name, schema)
        self.images = schema.images[name]

    def describe(self) -> str:
        """One line for people."""
        return f"images {self.name}: {self.images.size} x {self.images.size} pixels"

    @property
    def page_kind(self) -> str:
        """A single one."""
        return "image"

    def empty(self, n_patients: int) -> Shaped[np.ndarray, "patient ..."]:
        """Black."""
        return np.zeros((n_patients, self.images.size, self.images.size), dtype=np.uint16)

    def counted_once(self) -> Quantities:
        """Sum and sum of squares of gray over pixels."""
        pixels = MAX_PATIENTS * self.images.size**2
        return {f"{self.name}/{part}": Quantity((), pixels, 0) for part in ("sum", "square")}

    def count_once(self, arrays: PatientArrays, rows: Rows) -> Sums:
        """Over the patients who have one."""
        total = square = 0.0
        for row in self.having(arrays, rows):  # one at a time: a hospital's images do not fit into memory
            gray = arrays.raw[self.name][row].astype(np.float64) / GRAY_LEVELS
            total, square = total + float(gray.sum()), square + float(np.square(gray).sum())
        return {f"{self.name}/sum": np.array(total), f"{self.name}/square": np.array(square)}

    def fit(self, frame: StatisticsFrame, sums: Mapping[str, np.ndarray]) -> dict[str, Any]:  # noqa: ARG002
        """Mean and standard deviation of gray."""
        name, pixels = self.name, np.asarray(sums[f"{self.name}/present"] * self.images.size**2)
        mean, sd = mean_and_sd(pixels, sums[f"{name}/sum"], sums[f"{name}/square"])
        return {"image_mean": {name: float(mean)}, "image_sd": {name: float(sd)}}

    def standardise(
        self, arrays: PatientArrays, rows: Rows, preprocessing: Preprocessing
    ) -> Mapping[str, Shaped[np.ndarray, "patient ..."]]:
        """Standardised gray values, one channel."""
        gray = arrays.raw[self.name][rows].astype(np.float32) / GRAY_LEVELS
        standard = (gray - preprocessing.image_mean[self.name]) / preprocessing.image_sd[self.name]
        return {self.name: np.where(arrays.present[self.name][rows, None, None], standard, 0.0)[:, None]}

    def width(self, settings: Settings) -> int:
        """As the study sets it for all images."""
        return settings.image_embedding

    def build_encoder(self, settings: Settings) -> nn.Module:
        """A residual network and a projection."""
        from shared_model.model.encoders.image import ImageEncoder  # noqa: PLC0415 - torch

        return ImageEncoder(
            architecture=settings.image_encoder, width=settings.image_embedding, skip=settings.image_skip
        )

    def features(self, encoder: Any, preprocessing: Preprocessing) -> tuple[Feature, ...]:  # noqa: ARG002
        """One, for all of the image."""
        return (Feature(WHOLE_IMAGE, "", tuple(range(int(encoder.width)))),)

    def measures(self) -> Iterator[Measure]:
        """Exposure and sharpness; the mean gray of GRID x GRID regions, of all and by outcome."""
        cells = tuple(f"row {row + 1}, column {column + 1} of {GRID}" for row in range(GRID) for column in range(GRID))
        yield Measure(f"{self.name}/{PIXEL}", self.name, PIXELS, LOG_LIMIT)
        for part in (THUMBNAIL, THUMBNAIL_EVENTS, THUMBNAIL_OTHERS):
            yield Measure(f"{self.name}/{part}", self.name, cells)

    def measure(self, arrays: PatientArrays, rows: Rows) -> Measured:
        """The same of these patients; thumbnails in the order of `rows`."""
        here = self.having(arrays, rows)
        pixels, thumbnails = measure_images(arrays.raw[self.name], here)
        died = arrays.outcome[here] == 1
        return {
            f"{self.name}/{PIXEL}": pixels,
            f"{self.name}/{THUMBNAIL}": thumbnails,
            f"{self.name}/{THUMBNAIL_EVENTS}": thumbnails[died],
            f"{self.name}/{THUMBNAIL_OTHERS}": thumbnails[~died],
        }
