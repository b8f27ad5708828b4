"""Static variables: numbers, binaries and categories, one value a patient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Shaped

from shared_model.modalities.feature import Z_EDGES, Feature, edges_inside
from shared_model.modalities.modality import Modality, Rows, Sums
from shared_model.patient_arrays import PatientArrays
from shared_model.preprocessing.centred_sums import CentredSums
from shared_model.protocol.quantities import MAX_PATIENTS, Quantities, Quantity
from shared_model.quality.measure import KNOWN, LEVEL, LOG_LIMIT, Measure, Measured, to_levels
from shared_model.schema import STATIC, Schema, StaticColumn
from shared_model.shapley.common_background import RARE

if TYPE_CHECKING:
    from torch import Tensor, nn

    from shared_model.config import Settings
    from shared_model.model.batch import Batch
    from shared_model.preprocessing.standardisation import Preprocessing
    from shared_model.preprocessing.statistics import StatisticsFrame

NUMBERS, LEVELS = "numbers", "levels"
FEW_LEVELS = 8  # columns of a categorical column's embedding, at most


class StaticModality(Modality):
    """The columns of patients.*, which enter the fusion as they are: a category as a row of a table."""

    kind = STATIC
    part_type = StaticColumn

    def describe(self) -> str:
        """One line for people."""
        return f"static: {', '.join(_describe_column(column) for column in self.schema.static)}"

    def empty(self, n_patients: int) -> Shaped[np.ndarray, "patient ..."]:
        """Nothing: the columns of patients.* have fields of their own."""
        return np.zeros((n_patients, 0))

    def moments(self) -> Mapping[str, CentredSums]:
        """Of every number; a binary takes one question."""
        return {NUMBERS: CentredSums.start(number_ranges(self.schema), once=~self.numeric)}

    @property
    def numeric(self) -> Bool[np.ndarray, " number"]:
        """True for numbers that are measured, False for binaries."""
        return np.array([column.kind == "numeric" for column in self.schema.numbers], dtype=bool)

    def moment_values(self, arrays: PatientArrays, rows: Rows) -> Float64[np.ndarray, "patient number"]:
        """The numbers."""
        return within(arrays.numbers[rows], number_ranges(self.schema))

    def counted_once(self) -> Quantities:
        """Patients of each level."""
        return {
            f"{LEVELS}/{column.name}": Quantity((len(column.levels) + 1,), MAX_PATIENTS, 0)
            for column in self.schema.categories
        }

    def count_once(self, arrays: PatientArrays, rows: Rows) -> Sums:
        """Patients of each level, the missing ones last."""
        return {
            f"{LEVELS}/{name}": np.bincount(index, minlength=len(self.schema.categories[i].levels) + 1).astype(
                np.float64
            )
            for i, (name, index) in enumerate(self.level_indices(arrays, rows).items())
        }

    def fit(self, frame: StatisticsFrame, sums: Mapping[str, np.ndarray]) -> dict[str, Any]:  # noqa: ARG002
        """Mean, standard deviation and fill of each number."""
        numbers = frame.moments[NUMBERS]
        # A median lies within one standard deviation of the mean; of few patients the bins are too wide for as much.
        median = np.clip(frame.quartiles.median, numbers.mean - numbers.sd, numbers.mean + numbers.sd)
        return {
            "number_mean": numbers.mean.tolist(),
            "number_sd": numbers.divisor.tolist(),
            "number_fill": np.where(np.isnan(median), numbers.mean, median).tolist(),
        }

    def standardise(
        self, arrays: PatientArrays, rows: Rows, preprocessing: Preprocessing
    ) -> Mapping[str, Shaped[np.ndarray, "patient ..."]]:
        """Value (standardised, missing ones filled) and missing flag of each number; index of each level."""
        numbers = arrays.numbers[rows]
        missing = np.isnan(numbers)
        filled = np.where(missing, np.asarray(preprocessing.number_fill), numbers)
        standard = (filled - np.asarray(preprocessing.number_mean)) / np.asarray(preprocessing.number_sd)
        n_levels = np.array([len(column.levels) for column in self.schema.categories], dtype=np.int64)
        levels = arrays.levels[rows]
        return {
            NUMBERS: np.concatenate([standard, missing], axis=1),
            LEVELS: np.where(levels < 0, n_levels, levels),
        }

    def width(self, settings: Settings) -> int:  # noqa: ARG002
        """Two columns a number, and up to `FEW_LEVELS` a category."""
        return 2 * len(self.schema.numbers) + sum(self._widths())

    def build_encoder(self, settings: Settings) -> nn.Module:  # noqa: ARG002
        """Numbers as they are, and a table a category."""
        from shared_model.model.encoders.direct import StaticEncoder  # noqa: PLC0415 - torch

        n_levels = [len(column.levels) for column in self.schema.categories]
        return StaticEncoder(n_numbers=2 * len(self.schema.numbers), n_levels=n_levels)

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """Numbers and levels."""
        return batch.numbers, batch.levels

    def features(self, encoder: Any, preprocessing: Preprocessing) -> tuple[Feature, ...]:  # noqa: ARG002
        """A feature a column: of a number its value and missing flag, of a category its columns."""
        return (*self._number_features(preprocessing), *self._category_features())

    def _number_features(self, preprocessing: Preprocessing) -> Iterator[Feature]:
        n = len(self.schema.numbers)
        for i, column in enumerate(self.schema.numbers):
            mean, sd = preprocessing.number_mean[i], preprocessing.number_sd[i]
            columns, flag = (i, n + i), n + i
            if column.kind == "binary":
                yield Feature(
                    column.name, "", columns, levels=("0", "1"), binary=True, missing_flag=flag, offset=mean, slope=sd
                )
            else:
                edges = edges_inside(Z_EDGES, offset=mean, slope=sd, limits=column.range)
                yield Feature(column.name, column.unit, columns, edges=edges, missing_flag=flag, offset=mean, slope=sd)

    def _category_features(self) -> Iterator[Feature]:
        for column, start, width in self._tables():
            yield Feature(column.name, "", tuple(range(start, start + width)), levels=column.levels)

    def categories(self, encoder: Any) -> Mapping[str, tuple[int, int]]:  # noqa: ARG002
        """Where each category's columns begin, and how many levels it has with "missing"."""
        return {column.name: (start, len(column.levels) + 1) for column, start, _ in self._tables()}

    def level_indices(self, arrays: PatientArrays, rows: Rows) -> Mapping[str, Int64[np.ndarray, " row"]]:
        """Of every category."""
        levels = arrays.levels[rows]
        return {
            column.name: np.where(levels[:, i] < 0, len(column.levels), levels[:, i])
            for i, column in enumerate(self.schema.categories)
        }

    def known_columns(self, embedding: Float[np.ndarray, "patient column"]) -> Bool[np.ndarray, "patient column"]:
        """False where a number is missing and its column holds the common fill."""
        n, known = len(self.schema.numbers), np.ones(embedding.shape, dtype=bool)
        known[:, :n] = embedding[:, n : 2 * n] < 0.5
        return known

    def make_valid(
        self,
        values: Float64[np.ndarray, "row column"],
        uniforms: Float64[np.ndarray, "row column"],
        sums: Mapping[str, np.ndarray],
        *,
        encoder: Any,
        preprocessing: Preprocessing,
    ) -> Float64[np.ndarray, "row column"]:
        """Numbers in range or filled, binaries 0 or 1, and one level a category."""
        rows, n = values.copy(), len(self.schema.numbers)
        mean, sd = np.asarray(preprocessing.number_mean), np.asarray(preprocessing.number_sd)
        missing = rows[:, n : 2 * n] > 0.5
        rows[:, n : 2 * n] = missing
        for i, column in enumerate(self.schema.numbers):
            low, high = ((np.asarray(column.range or (0.0, 1.0)) - mean[i]) / sd[i]).tolist()
            drawn = np.clip(rows[:, i], low, high)
            if column.kind == "binary":
                drawn = np.where(drawn > (low + high) / 2, high, low)
            rows[:, i] = np.where(missing[:, i], (preprocessing.number_fill[i] - mean[i]) / sd[i], drawn)
        for i, (category, start, width) in enumerate(self._tables()):
            table = encoder.tables[i].weight.detach().double().cpu().numpy()
            counts = np.asarray(sums[f"{LEVELS}/{category.name}"])
            rows[:, start : start + width] = table[_draw_levels(uniforms[:, start], counts, table[:, 0])]
        return rows

    def value_of(
        self,
        feature: Feature,
        arrays: PatientArrays,
        row: int,
        z: Float64[np.ndarray, "1"],  # noqa: ARG002
    ) -> float | str | None:
        """A number as it was measured, or the name of a level."""
        for i, column in enumerate(self.schema.categories):
            if column.name == feature.name:
                level = int(arrays.levels[row, i])
                return column.levels[level] if level >= 0 else None
        names = [column.name for column in self.schema.numbers]
        return float(arrays.numbers[row, names.index(feature.name)])

    def measures(self) -> Iterator[Measure]:
        """Who has a value in each column; levels of the measured numbers."""
        columns = (*self.schema.numbers, *self.schema.categories)
        ranges = {column.name: column.range for column in self.schema.numbers if column.range is not None}
        yield Measure(f"{STATIC}/{KNOWN}", STATIC, tuple(column.name for column in columns))
        yield Measure(f"{STATIC}/{LEVEL}", STATIC, tuple(ranges), LOG_LIMIT, ranges=tuple(ranges.values()))

    def measure(self, arrays: PatientArrays, rows: Rows) -> Measured:
        """The same of these patients."""
        numbers, levels = arrays.numbers[rows], arrays.levels[rows]
        known = np.concatenate([~np.isnan(numbers), levels >= 0], axis=1)
        ranges = [column.range for column in self.schema.numbers if column.range is not None]
        measured = [i for i, column in enumerate(self.schema.numbers) if column.range is not None]
        return {
            f"{STATIC}/{KNOWN}": known.astype(np.float64),
            f"{STATIC}/{LEVEL}": to_levels(numbers[:, measured], ranges),
        }

    def correlated(self) -> tuple[str, ...]:
        """The numbers."""
        return tuple(column.name for column in self.schema.numbers)

    def correlated_values(self, arrays: PatientArrays, rows: Rows) -> Float64[np.ndarray, "patient column"]:
        """The numbers."""
        return np.asarray(arrays.numbers[rows], dtype=np.float64)

    def _widths(self) -> list[int]:
        """Embedding columns of each category."""
        return [min(FEW_LEVELS, len(column.levels)) for column in self.schema.categories]

    def _tables(self) -> Iterator[tuple[StaticColumn, int, int]]:
        """Each category, its first column in the embedding, and how many it has."""
        start = 2 * len(self.schema.numbers)
        for column, width in zip(self.schema.categories, self._widths(), strict=True):
            yield column, start, width
            start += width


def number_ranges(schema: Schema) -> Float64[np.ndarray, "number 2"]:
    """Ranges of the numbers; 0 to 1 of a binary."""
    return np.array([column.range or (0.0, 1.0) for column in schema.numbers], dtype=np.float64).reshape(-1, 2)


def within(values: np.ndarray, ranges: Float64[np.ndarray, "value 2"]) -> Float64[np.ndarray, "..."]:
    """Values in float64; clipped, because float32 can put a value at the range's end just outside it."""
    clipped: np.ndarray = np.clip(values.astype(np.float64), ranges[:, 0], ranges[:, 1])
    return clipped


def _describe_column(column: StaticColumn) -> str:
    if column.kind == "categorical":
        return f"{column.name} ({', '.join(column.levels)})"
    return f"{column.name} [{column.unit}]" if column.unit else column.name


def _draw_levels(
    uniforms: Float64[np.ndarray, "row"], counts: Float64[np.ndarray, "level"], order: Float64[np.ndarray, "level"]
) -> Int64[np.ndarray, "row"]:
    """Levels in proportion to their counts; ordered by their first column, so correlations keep their sign."""
    counts = np.where(counts < RARE, 0.0, counts) if counts.max() >= RARE else counts  # no rare level is drawn
    ranked = np.argsort(order, kind="stable")
    cumulative = np.cumsum(counts[ranked]) / max(counts.sum(), 1.0)
    return np.asarray(ranked[np.minimum(np.searchsorted(cumulative, uniforms, side="right"), len(counts) - 1)])
