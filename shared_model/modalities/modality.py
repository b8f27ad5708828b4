"""A modality of a study as an object: its part of the schema, and everything that depends on its kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Shaped

from shared_model.modalities.feature import Feature
from shared_model.patient_arrays import PatientArrays
from shared_model.preprocessing.centred_sums import CentredSums
from shared_model.protocol.quantities import Quantities
from shared_model.quality.measure import Measure, Measured
from shared_model.schema import Schema, SchemaPart

if TYPE_CHECKING:  # a launcher checks a study without torch
    from torch import Tensor, nn

    from shared_model.config import Settings
    from shared_model.model.batch import Batch
    from shared_model.preprocessing.standardisation import Preprocessing
    from shared_model.preprocessing.statistics import StatisticsFrame

Rows = Int64[np.ndarray, " row"]
Sums = dict[str, np.ndarray]


class Modality(ABC):
    """One modality of a study.

    A hospital reads it into `PatientArrays.raw[name]`, one row a patient. A kind of its own gives at least its
    schema part, `empty`, the statistics and the standardisation of its values, the encoder, and its features; what it
    does not override means: no statistics that need several questions, one feature for the whole, no quality measures.

    Attributes:
        kind: section of schema.toml that lists modalities of this kind.
        part_type: type of its entries there.
        name: of the modality.
        schema: of the study.
    """

    kind: ClassVar[str]
    part_type: ClassVar[type[SchemaPart]]

    def __init__(self, name: str, schema: Schema) -> None:
        self.name, self.schema = name, schema

    # ------------------------------------------------------------------------------------------------- as it is written

    @abstractmethod
    def describe(self) -> str:
        """One line for people: kind, name and variables."""

    @property
    def page_kind(self) -> str:
        """How a patient's page shows it."""
        return self.kind

    @abstractmethod
    def empty(self, n_patients: int) -> Shaped[np.ndarray, "patient ..."]:
        """Values of patients who all lack it."""

    def having(self, arrays: PatientArrays, rows: Rows) -> Int64[np.ndarray, " here"]:
        """Those of these patients who have it."""
        here: Int64[np.ndarray, " here"] = rows[arrays.present[self.name][rows]]
        return here

    # ------------------------------------------------------------------------------------------- statistics and scaling

    def moments(self) -> Mapping[str, CentredSums]:
        """Columns whose mean and spread take several questions, by the name of their sums."""
        return {}

    def moment_values(self, arrays: PatientArrays, rows: Rows) -> Float64[np.ndarray, "patient ..."]:
        """Values behind `moments`, the last axis is the column; NaN = not measured."""
        raise NotImplementedError(self.kind)

    def cells(self) -> int:
        """Most values of a column of `moments` that one patient has."""
        return 1

    @abstractmethod
    def counted_once(self) -> Quantities:
        """The sums of `count_once`."""

    @abstractmethod
    def count_once(self, arrays: PatientArrays, rows: Rows) -> Sums:
        """Sums over some patients that take one question."""

    @abstractmethod
    def fit(self, frame: StatisticsFrame, sums: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Fields of the common preprocessing, from the totals over all hospitals; a mapping holds this modality's."""

    @abstractmethod
    def standardise(
        self, arrays: PatientArrays, rows: Rows, preprocessing: Preprocessing
    ) -> Mapping[str, Shaped[np.ndarray, "patient ..."]]:
        """Inputs of the encoder by name; zero, and not to be read, where the modality is absent."""

    # ------------------------------------------------------------------------------------------------------------ model

    @abstractmethod
    def width(self, settings: Settings) -> int:
        """Columns of its embedding."""

    @abstractmethod
    def build_encoder(self, settings: Settings) -> nn.Module:
        """Its encoder with random weights: from the inputs to [patient, width], with an attribute `width`."""

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """What of a batch its encoder takes."""
        return (batch.inputs[self.name],)

    # --------------------------------------------------------------------------------------------------------- features

    def features(self, encoder: Any, preprocessing: Preprocessing) -> tuple[Feature, ...]:  # noqa: ARG002
        """Players of the second stage, each with columns of the embedding; one for the whole if not told."""
        return (Feature(self.kind, "", tuple(range(int(encoder.width)))),)

    def categories(self, encoder: Any) -> Mapping[str, tuple[int, int]]:  # noqa: ARG002
        """First column and number of levels, "missing" among them, of columns that stand for a level together."""
        return {}

    def level_indices(self, arrays: PatientArrays, rows: Rows) -> Mapping[str, Int64[np.ndarray, " row"]]:  # noqa: ARG002
        """Per category the index of each patient's level; the one after the last means missing."""
        return {}

    def known_columns(self, embedding: Float[np.ndarray, "patient column"]) -> Bool[np.ndarray, "patient column"]:
        """False where a column holds a fill and not a value."""
        return np.ones(embedding.shape, dtype=bool)

    def make_valid(
        self,
        values: Float64[np.ndarray, "row column"],
        uniforms: Float64[np.ndarray, "row column"],  # noqa: ARG002
        sums: Mapping[str, np.ndarray],  # noqa: ARG002
        *,
        encoder: Any,  # noqa: ARG002
        preprocessing: Preprocessing,  # noqa: ARG002
    ) -> Float64[np.ndarray, "row column"]:
        """Embeddings that patients could have, from drawn ones.

        Args:
            values: drawn columns.
            uniforms: the ranks behind them.
            sums: that they were drawn from.
            encoder: of this modality.
            preprocessing: the common one.
        """
        return values

    def value_of(
        self,
        feature: Feature,
        arrays: PatientArrays,  # noqa: ARG002
        row: int,  # noqa: ARG002
        z: Float64[np.ndarray, "1"],
    ) -> float | str | None:
        """A patient's value of a feature in its unit, or level.

        Args:
            feature: one that has a value, which is known.
            arrays: all patients of the hospital.
            row: of the patient.
            z: the feature's first column of his embedding.
        """
        return float(feature.in_unit(z)[0])

    # ---------------------------------------------------------------------------------------------------------- quality

    def measures(self) -> Iterator[Measure]:
        """Data-quality measures, besides whether patients have the modality."""
        return iter(())

    def measure(self, arrays: PatientArrays, rows: Rows) -> Measured:  # noqa: ARG002
        """The matrices of `measures` for those of these patients who have it."""
        return {}

    def correlated(self) -> tuple[str, ...]:
        """Names of the numbers whose correlations are looked at."""
        return ()

    def correlated_values(
        self,
        arrays: PatientArrays,  # noqa: ARG002
        rows: Rows,
    ) -> Float64[np.ndarray, "patient column"]:
        """A value of each of `correlated` for each patient; NaN where there is none."""
        return np.empty((len(rows), 0))
