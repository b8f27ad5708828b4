"""A kind of modality of its own package: free text as counts of hashed words, through a small encoder."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from client.data.columns import read_texts
from client.data.ids import without_asides
from client.data.kinds import KindOfTable, TableRead
from client.data.patients import PatientRows, find_patients
from client.data.problems import ProblemLog
from client.data.tables import read_table
from client.data.variable_summary import VariableSummary
from client.patient_page.content import ModalityEffect
from shared_model.config import Settings
from shared_model.modalities.modality import Modality, Rows, Sums
from shared_model.modalities.moments import mean_and_sd
from shared_model.pages.blocks import Section, Text
from shared_model.pages.wording import Words
from shared_model.patient_arrays import PatientArrays
from shared_model.preprocessing.standardisation import Preprocessing
from shared_model.preprocessing.statistics import StatisticsFrame
from shared_model.protocol.quantities import MAX_PATIENTS, Quantities, Quantity
from shared_model.schema import Schema, SchemaPart

WIDTH = 3
MOST_WORDS = 50.0  # of one patient in one column


class Notes(SchemaPart):
    """One text a patient, in the column `text` of its table."""

    columns: int = Field(default=16, ge=1, le=256)


class TextEncoder(nn.Module):
    """A linear map and a hyperbolic tangent."""

    def __init__(self, *, n_columns: int) -> None:
        super().__init__()
        self.width = WIDTH
        self.linear = nn.Linear(n_columns, WIDTH)

    def forward(self, words: Float[Tensor, "batch column"]) -> Float[Tensor, "batch width"]:
        """Embedding of the standardised counts."""
        return self.linear(words).tanh()  # type: ignore[no-any-return]


class TextModality(Modality):
    """Texts as counts of hashed words."""

    kind = "text"
    part_type = Notes

    def __init__(self, name: str, schema: Schema) -> None:
        super().__init__(name, schema)
        self.columns: int = schema.further["text"][name].columns  # type: ignore[attr-defined]

    def describe(self) -> str:
        """One line for people."""
        return f"text {self.name}: words hashed to {self.columns} columns"

    def empty(self, n_patients: int) -> np.ndarray:
        """No word."""
        return np.zeros((n_patients, self.columns), dtype=np.float32)

    def counted_once(self) -> Quantities:
        """Sum and sum of squares of each column."""
        limits = {"sum": MOST_WORDS, "square": MOST_WORDS**2}
        return {
            f"{self.name}/{part}": Quantity((self.columns,), MAX_PATIENTS * most, 0) for part, most in limits.items()
        }

    def count_once(self, arrays: PatientArrays, rows: Rows) -> Sums:
        """Over the patients who have a text."""
        values = arrays.raw[self.name][self.having(arrays, rows)].astype(np.float64)
        return {f"{self.name}/sum": values.sum(axis=0), f"{self.name}/square": np.square(values).sum(axis=0)}

    def fit(self, frame: StatisticsFrame, sums: Mapping[str, np.ndarray]) -> dict[str, Any]:  # noqa: ARG002
        """Mean and standard deviation of each column."""
        name = self.name
        mean, sd = mean_and_sd(sums[f"{name}/present"], sums[f"{name}/sum"], sums[f"{name}/square"])
        return {"further": {name: {"mean": mean.tolist(), "sd": sd.tolist()}}}

    def standardise(self, arrays: PatientArrays, rows: Rows, preprocessing: Preprocessing) -> Mapping[str, np.ndarray]:
        """Standardised counts."""
        fitted = preprocessing.further[self.name]
        standard = (arrays.raw[self.name][rows] - np.asarray(fitted["mean"])) / np.asarray(fitted["sd"])
        return {self.name: np.where(arrays.present[self.name][rows, None], standard, 0.0)}

    def width(self, settings: Settings) -> int:  # noqa: ARG002
        """Of the embedding."""
        return WIDTH

    def build_encoder(self, settings: Settings) -> nn.Module:  # noqa: ARG002
        """The small encoder."""
        return TextEncoder(n_columns=self.columns)


def read_notes(path: Path, name: str, schema: Schema, patients: PatientRows, *, log: ProblemLog) -> TableRead:
    """Counts of hashed words of all patients."""
    counts = open_notes(name, schema).empty(len(patients))
    table = read_table(path, wanted=[schema.study.patient_id, "text"], log=log)
    if table is None:
        return counts, np.zeros(len(patients), dtype=bool), ()
    table = without_asides(table, schema.study.patient_id)
    for row, text in zip(
        find_patients(table, schema.study.patient_id, patients), read_texts(table, "text"), strict=True
    ):
        for word in text.casefold().split() if row >= 0 else ():
            counts[row, zlib.crc32(word.encode()) % counts.shape[1]] += 1
    present = np.asarray(counts.any(axis=1))
    return np.minimum(counts, MOST_WORDS), present, table.ignored


def summarise_notes(arrays: PatientArrays, schema: Schema, name: str) -> tuple[VariableSummary, ...]:  # noqa: ARG001
    """How many words a text has."""
    words = arrays.raw[name][arrays.present[name]].sum(axis=1)
    low, middle, high = np.percentile(words, [5, 50, 95]).tolist() if len(words) else (0.0, 0.0, 0.0)
    return (VariableSummary("words", quantiles=(low, middle, high)),)


def describe_notes(modality: ModalityEffect, words: Words) -> Section:  # noqa: ARG001
    """The section of a patient's page."""
    return Section("text", f"Text {modality.name}", (Text(f"Effect on the log odds: {modality.phi:+.3f}"),))


def open_notes(name: str, schema: Schema) -> TextModality:
    """The modality."""
    return TextModality(name, schema)


reader = KindOfTable(read_notes, summarise_notes)
