"""Records of a run folder's files: the fields that report and dashboard show, and no others.

A field that an older run lacks has a default; `None` is what may not be told (suppressed) or is not defined.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass

from shared_model.config import Scalar
from shared_model.evaluation.metrics import Metrics
from shared_model.model.untrained_encoders import used_images
from shared_model.privacy.suppression import suppressed_row

T = TypeVar("T")


def _hide(value: object) -> object:
    return None if value == suppressed_row() else value


Released = Annotated[T | None, BeforeValidator(_hide)]
Number = float | None
Ends = tuple[float | None, float | None] | None
Curve = Mapping[str, tuple[float, ...]]

_record = checked_dataclass(frozen=True, config=ConfigDict(extra="ignore"))


@_record
class Naming:
    """Of a study: its names."""

    name: str
    title: str = ""
    outcome: str = ""


@_record
class Column:
    """A static variable."""

    name: str
    kind: str = ""
    unit: str = ""


@_record
class StudySchema:
    """What the study is about."""

    study: Naming
    static: tuple[Column, ...] = ()
    series: Mapping[str, Mapping[str, object]] = Field(default_factory=dict)
    events: Mapping[str, Mapping[str, object]] = Field(default_factory=dict)
    images: Mapping[str, Mapping[str, object]] = Field(default_factory=dict)
    further: Mapping[str, Mapping[str, Mapping[str, object]]] = Field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of all modalities."""
        others = (*self.series, *self.events, *self.images, *(name for kind in self.further.values() for name in kind))
        return ("static", *others) if self.static else others


@_record
class Member:
    """A hospital of the roster."""

    site: str
    version: str = ""
    modalities: tuple[str, ...] = ()


@_record
class Config:
    """config.json."""

    settings: Mapping[str, Scalar]
    schema_: StudySchema = Field(alias="schema")
    run_id: str = ""
    phases: tuple[str, ...] = ()
    schema_sha256: str = ""
    protocol: int = 0
    roster: tuple[Member, ...] = ()
    excluded: Mapping[str, str] = Field(default_factory=dict)
    python: str = ""
    packages: Mapping[str, str] = Field(default_factory=dict)

    def images(self) -> list[str]:
        """The study's images that the run uses."""
        return used_images(self.settings, self.schema_.images)


@_record
class RoundExplanation:
    """Shares of the model after a round, on the validation part."""

    shares: Released[Mapping[str, Number]] = None
    sites: Mapping[str, Released[Mapping[str, Number]]] = Field(default_factory=dict)


@_record
class Round:
    """A line of rounds.jsonl. How many patients answered is left out: two rounds differ by a hospital's."""

    round: int
    phase: str
    train_loss: Number = None
    val_loss: Number = None
    val_auc: Number = None
    asked: tuple[str, ...] = ()
    answered: tuple[str, ...] = ()
    failed: Mapping[str, str] = Field(default_factory=dict)
    seconds: Number = None
    bytes_down: int | None = None
    bytes_up: int | None = None
    explanation: RoundExplanation | None = None


def only_validates(rounds: Sequence[Round], i: int) -> bool:
    """True if a line is the last of its phase: it trains nothing, and has the number of the round that it validates."""
    one = rounds[i]
    return i > 0 and one.train_loss is None and (rounds[i - 1].round, rounds[i - 1].phase) == (one.round, one.phase)


@_record
class QualityFinding:
    """What a check of a hospital's data found."""

    check: str
    modality: str
    item: str
    value: Number
    limit: float
    grade: str


@_record
class QualityRow:
    """A hospital's grade."""

    grade: str
    refused: bool = False
    findings: tuple[QualityFinding, ...] = ()


@_record
class Correlated:
    """A pair of features that share their attribution."""

    modality: str
    pair: str
    r: float


@_record
class ReportedLimit:
    """Where a check turns amber and red."""

    number: str
    amber: Number = None
    red: Number = None


@_record
class Quality:
    """quality.json."""

    hospitals: Mapping[str, Released[QualityRow]]
    failed: Mapping[str, str] = Field(default_factory=dict)
    correlated: tuple[Correlated, ...] = ()
    limits: Mapping[str, ReportedLimit] = Field(default_factory=dict)


@_record
class TestPart:
    """The `test` entry of metrics.json."""

    pooled: Released[Metrics]
    sites: Mapping[str, Released[Metrics]] = Field(default_factory=dict)
    curves: Mapping[str, Curve] = Field(default_factory=dict)
    failed: Mapping[str, str] = Field(default_factory=dict)


@_record
class ModelFile:
    """model.json; `preprocessing` is JSON of its own."""

    weights_sha256: str = ""
    file_sha256: str = ""
    preprocessing_sha256: str = ""
    rounds: int | None = None
    trained_phases: tuple[str, ...] = ()
    kept_by_hospitals: tuple[str, ...] = ()
    preprocessing: str = "{}"
