"""The result of `explain_patient` with types: the one source of every number of the page."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from shared_model.errors import StudyError

Part = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Reference:
    """A feature in the reference patients.

    Attributes:
        rows: reference patients who have the modality.
        n: of them, those with a value.
        median: of a number.
        quartiles: first and third, of a number.
        levels: share of each level, of a binary or a category.
    """

    rows: int
    n: int
    median: float | None = None
    quartiles: tuple[float | None, float | None] = (None, None)
    levels: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class FeatureEffect:
    """One feature of a modality; phi and se in log odds."""

    name: str
    unit: str
    kind: Literal["number", "binary", "category", "whole"]
    value: float | str | None
    phi: float
    se: float
    reference: Reference | None


@dataclass(frozen=True)
class ModalityEffect:
    """One modality against one background; log odds where not said otherwise.

    Attributes:
        name: as the schema spells it.
        kind: static, series, image, how events are counted, or a kind that another package adds.
        present: whether the patient has it; else phi is the effect of not having it.
        phi: exact Shapley value.
        share: of the sum of all |phi|.
        phi_probability: on the scale of the risk.
        se_background: how much phi varies with the sample of reference patients.
        presence: part of phi that is the effect of having the modality at all, where some reference patients lack it.
        features: with presence they sum to phi; empty where the patient lacks the modality.
    """

    name: str
    kind: str
    present: bool
    phi: float
    share: float | None
    phi_probability: float
    se_background: float
    presence: float
    features: tuple[FeatureEffect, ...]


@dataclass(frozen=True)
class View:
    """A patient against one background."""

    background_id: str
    rows: int
    base_probability: float
    base_logit: float
    modalities: tuple[ModalityEffect, ...]


@dataclass(frozen=True)
class Prediction:
    """The predicted risk, and its log odds."""

    probability: float
    logit: float


@dataclass(frozen=True)
class Cohort:
    """Risks of other patients of the hospital, ascending; part is None where it is not known which they were in."""

    part: Part | None
    risks: tuple[float, ...]


@dataclass(frozen=True)
class Missing:
    """What the patient lacks: a modality, or a static variable."""

    modality: str
    feature: str | None
    phi: float


@dataclass(frozen=True)
class Image:
    """Attribution of an image's pixels; `unavailable` says why there is none."""

    unavailable: str = ""
    references: int = 0
    phi: float = 0.0
    phi_having: float = 0.0
    subset_gap: float = 0.0
    residual: float = 0.0
    pixels: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class ChannelEffect:
    """One measured quantity."""

    name: str
    unit: str


@dataclass(frozen=True)
class SeriesCells:
    """Attribution of each time and channel."""

    phi: tuple[tuple[float, ...], ...]
    residual: float


@dataclass(frozen=True)
class Pattern:
    """Attribution, by channel, of which cells were measured at all."""

    phi: tuple[float, ...]
    se: tuple[float, ...]


@dataclass(frozen=True)
class Segments:
    """Attribution of segments of time by channel."""

    first_steps: tuple[int, ...]
    phi: tuple[tuple[float, ...], ...]
    se: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Recording:
    """A series along time; `unavailable` says why there is no attribution."""

    unavailable: str = ""
    references: int = 0
    phi: float = 0.0
    phi_having: float = 0.0
    subset_gap: float = 0.0
    time_unit: str = ""
    time: tuple[float, ...] = ()
    channels: tuple[ChannelEffect, ...] = ()
    measured: tuple[tuple[float | None, ...], ...] = ()
    cells: SeriesCells | None = None
    pattern: Pattern | None = None
    segments: Segments | None = None


@dataclass(frozen=True)
class Test:
    """How good the model was on patients of all hospitals whom training never saw; None is suppressed or not there."""

    n: int | None
    events: int | None
    auc: float | None
    auc_ci: tuple[float, float] | None
    calibration_slope: float | None
    calibration_slope_ci: tuple[float, float] | None


@dataclass(frozen=True)
class QualityNote:
    """What a check of data quality found in a hospital.

    Attributes:
        hospital: where.
        check: its name.
        modality: of what; "" for the outcome.
        grade: how bad.
        items: columns, channels or regions; none for the whole modality.
        value: the worst number; None where it may not be told.
        accepted: the coordinator let the hospital take part in spite of it.
    """

    hospital: str
    check: str
    modality: str
    grade: Literal["amber", "red"]
    items: tuple[str, ...]
    value: float | None
    accepted: bool


@dataclass(frozen=True)
class Evidence:
    """What speaks for and against the model's predictions here.

    Attributes:
        site: what this hospital is called.
        is_judged: the run names the hospital, and judged its data.
        test: how good the model is.
        findings: of the hospitals that the model learned from, and of this one.
        unused: kinds of data that the model does not use.
        unproven: of those that it uses, the ones of which training gave no evidence that they help.
        untrained: images that go through a network with random weights that nobody trained.
        encoder: that network, in words.
    """

    site: str
    is_judged: bool
    test: Test
    findings: tuple[QualityNote, ...]
    unused: tuple[str, ...]
    unproven: tuple[str, ...]
    untrained: tuple[str, ...]
    encoder: str


@dataclass(frozen=True)
class Explained:
    """One patient's explanation."""

    study: str
    outcome: str
    site: str
    run_id: str
    model_hash: str
    evidence: Evidence
    patient_id: str
    part_of_run: Part | None
    prediction: Prediction
    cohort: Cohort
    missing: tuple[Missing, ...]
    views: Mapping[Literal["common", "local"], View]
    images: Mapping[str, Image]
    series: Mapping[str, Recording]


_EXPLAINED, _EVIDENCE = TypeAdapter(Explained), TypeAdapter(Evidence)


def read_evidence(content: Mapping[str, Any]) -> Evidence:
    """What `gather_evidence` returned."""
    return _EVIDENCE.validate_python(content)


def read_explanation(content: Mapping[str, Any]) -> Explained:
    """What `explain_patient` returned.

    Raises:
        StudyError: it is not that.
    """
    try:
        return _EXPLAINED.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StudyError(
            f"explanation: expected what explain_patient returns, got at {where}: {first['msg']}."
        ) from error
