"""The features of a modality: their columns in the embedding, and the grouping of their values.

Static variables and events enter the fusion as they are, and a series enters as summaries of its channels beside the
LSTM's last state. So each of these features owns some columns of the embedding; an image is one feature.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from shared_model.model.embedding_widths import SUMMARIES
from shared_model.model.encoders.series import SeriesEncoder
from shared_model.model.fusion import MultimodalModel
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.schema import STATIC, Schema

TIME_PATTERN = "time pattern"
WHOLE_IMAGE = "image"
_Z_EDGES = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
_SPREAD_EDGES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8)  # a standard deviation, in the cohort's
_FRACTION_EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


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
        """Whether there is a value to set the attribution against."""
        return bool(self.levels or self.edges)

    @property
    def has_few_values(self) -> bool:
        """Whether many patients share a value: levels and counts."""
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
    features: dict[str, tuple[Feature, ...]] = {}
    for name in model.modalities:
        if name == STATIC:
            features[name] = tuple(_static_features(model, schema, preprocessing))
        elif name in schema.series:
            features[name] = tuple(_series_features(model, schema, preprocessing, name))
        elif name in schema.events:
            features[name] = tuple(_event_features(schema, preprocessing, name))
        else:
            features[name] = (Feature(WHOLE_IMAGE, "", tuple(range(model.widths[name]))),)
    return features


def _static_features(model: MultimodalModel, schema: Schema, preprocessing: Preprocessing) -> Iterator[Feature]:
    n = len(schema.numbers)
    for i, column in enumerate(schema.numbers):
        mean, sd = preprocessing.number_mean[i], preprocessing.number_sd[i]
        columns, flag = (i, n + i), n + i
        if column.kind == "binary":
            yield Feature(
                column.name, "", columns, levels=("0", "1"), binary=True, missing_flag=flag, offset=mean, slope=sd
            )
        else:
            edges = _inside(_Z_EDGES, offset=mean, slope=sd, limits=column.range)
            yield Feature(column.name, column.unit, columns, edges=edges, missing_flag=flag, offset=mean, slope=sd)
    start = 2 * n
    for column, width in zip(schema.categories, category_widths(model), strict=True):
        yield Feature(column.name, "", tuple(range(start, start + width)), levels=column.levels)
        start += width


def _event_features(schema: Schema, preprocessing: Preprocessing, name: str) -> Iterator[Feature]:
    events = schema.events[name]
    for i, item in enumerate(events.items):
        mean, sd = preprocessing.event_mean[name][i], preprocessing.event_sd[name][i]
        if events.aggregate == "any":
            yield Feature(item, "", (i,), levels=("0", "1"), binary=True, offset=mean, slope=sd)
        else:
            edges = _inside(_Z_EDGES, offset=mean, slope=sd, limits=(0.0, np.inf))
            yield Feature(item, "", (i,), edges=edges, logarithmic=True, offset=mean, slope=sd)


def _series_features(
    model: MultimodalModel, schema: Schema, preprocessing: Preprocessing, name: str
) -> Iterator[Feature]:
    channels = schema.series[name].channels
    encoder = model.encoders[name]
    assert isinstance(encoder, SeriesEncoder)  # noqa: S101 - as the schema says
    hidden = encoder.hidden
    for c, channel in enumerate(channels if encoder.n_summaries else ()):
        mean, sd = preprocessing.series_mean[name][c], preprocessing.series_sd[name][c]
        for s, summary in enumerate(SUMMARIES):
            columns = (hidden + s * len(channels) + c,)
            count = hidden + SUMMARIES.index("measured") * len(channels) + c
            label = f"{channel.name} {summary}"
            if summary == "measured":
                yield Feature(label, "fraction", columns, edges=_FRACTION_EDGES)
            elif summary == "sd":
                yield Feature(label, channel.unit, columns, edges=_SPREAD_EDGES, slope=sd, measured_count=count)
            else:
                edges = _inside(_Z_EDGES, offset=mean, slope=sd, limits=channel.range)
                yield Feature(label, channel.unit, columns, edges=edges, measured_count=count, offset=mean, slope=sd)
    if hidden:
        yield Feature(TIME_PATTERN, "", tuple(range(hidden)))


def _inside(
    edges: tuple[float, ...], *, offset: float, slope: float, limits: tuple[float, float] | None
) -> tuple[float, ...]:
    """The edges that lie within a feature's range; the middle one where none does."""
    low, high = limits or (-np.inf, np.inf)
    inside = tuple(edge for edge in edges if low < offset + slope * edge < high)
    return inside or (edges[len(edges) // 2],)


def category_widths(model: MultimodalModel) -> list[int]:
    """Embedding columns of each category of the static modality."""
    return [int(table.weight.shape[1]) for table in model.encoders[STATIC].tables]  # type: ignore[union-attr]


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


def is_known(feature: Feature, embedding: Float[np.ndarray, "patient column"]) -> Bool[np.ndarray, "patient"]:
    """Whether the embedding holds a measured value of a feature, not a fill; always true of a category."""
    known = np.ones(len(embedding), dtype=bool)
    if feature.missing_flag is not None:
        known &= embedding[:, feature.missing_flag] < 0.5
    if feature.measured_count is not None:
        known &= embedding[:, feature.measured_count] > 0
    return known
