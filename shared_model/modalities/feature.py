"""A feature of a modality: its columns in the embedding, its unit, and the groups of its values."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

Z_EDGES = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True)
class Feature:
    """One player within a modality.

    Attributes:
        name: as the schema spells it; for a series the channel and the summary, e.g. `hr_bpm min`.
        unit: of its values; "" for none.
        columns: of the modality's embedding. A number's value and missing flag are one player, as are the columns of
            a category.
        levels: of a binary or categorical feature; empty for others.
        edges: inner edges of the value groups, on the scale of the embedding's first column; empty for levels and for
            a feature without a value (time pattern, image).
        offset: with slope, turns the embedding's column into the feature's unit: offset + slope * z.
        slope: see offset.
        logarithmic: whether that is log(1 + value).
        binary: whether the levels are 0 and 1 of a number, which have an order; a category's have none.
        missing_flag: column that is 1 where the value is missing.
        measured_count: column that is 0 where the value is missing.
    """

    name: str
    unit: str
    columns: tuple[int, ...]
    levels: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    offset: float = 0.0
    slope: float = 1.0
    logarithmic: bool = False
    binary: bool = False
    missing_flag: int | None = None
    measured_count: int | None = None

    @property
    def has_value(self) -> bool:
        """True if there is a value to set the attribution against."""
        return bool(self.levels or self.edges)

    @property
    def has_few_values(self) -> bool:
        """True if many patients share a value: levels and counts."""
        return bool(self.levels) or self.logarithmic

    @property
    def n_groups(self) -> int:
        """Value groups, the last one for missing values; one for all patients if the feature has no value."""
        return (len(self.levels) or len(self.edges) + 1) + 1 if self.has_value else 1

    @property
    def midpoint(self) -> float:
        """Of a binary feature: what separates 0 from 1 on the scale of the embedding."""
        return (0.5 - self.offset) / self.slope

    def in_unit(self, z: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Values in the feature's unit, from the embedding's column."""
        value = self.offset + self.slope * z
        return np.asarray(np.expm1(value) if self.logarithmic else value)


def is_known(feature: Feature, embedding: Float[np.ndarray, "patient column"]) -> Bool[np.ndarray, "patient"]:
    """True where the embedding holds a measured value of a feature, not a fill; always true of a category."""
    known = np.ones(len(embedding), dtype=bool)
    if feature.missing_flag is not None:
        known &= embedding[:, feature.missing_flag] < 0.5
    if feature.measured_count is not None:
        known &= embedding[:, feature.measured_count] > 0
    return known


def edges_inside(
    edges: tuple[float, ...], *, offset: float, slope: float, limits: tuple[float, float] | None
) -> tuple[float, ...]:
    """The edges that lie within a feature's range; the middle one where none does."""
    low, high = limits or (-np.inf, np.inf)
    inside = tuple(edge for edge in edges if low < offset + slope * edge < high)
    return inside or (edges[len(edges) // 2],)
