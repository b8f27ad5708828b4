"""Every message of the protocol, one class each; the only module here that knows Flower.

The coordinator asks, a hospital answers with the reply of the same name or with a Refusal. A message holds one JSON
text ("header") and named arrays; nothing is pickled. A hospital keeps no state that a later message relies on, except
files it can ask for again, so a restarted hospital simply goes on. The table in questions.py says which reply belongs
to which request, and what its arrays may be.
"""

import json
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, ConfigRecordValues, RecordDict
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from shared_model.config import Phase
from shared_model.errors import ProtocolError
from shared_model.protocol.quantities import MAX_SITES

PROTOCOL_VERSION = 9
HANDSHAKE, STATISTICS, TRAIN, EVALUATE = "query.handshake", "query.statistics", "train", "evaluate"
COMPONENTS, REFERENCE, QUALITY = "query.components", "query.reference", "query.quality"
BACKGROUND, EXPLAIN, SPREAD = "query.background", "query.explain", "query.spread"
REFIT, SIZES = "query.refit", "query.sizes"
KEYS, SHARES, TEXTS = "query.keys", "query.shares", "query.texts"
CONFIRM, OPEN = "query.confirm", "query.open"
SUM_KINDS = (KEYS, SHARES, TEXTS, CONFIRM, OPEN)
KINDS = (
    *(HANDSHAKE, REFERENCE, QUALITY, STATISTICS, COMPONENTS, TRAIN, EVALUATE),
    *(BACKGROUND, EXPLAIN, SPREAD, REFIT, SIZES),
    *SUM_KINDS,
)

MAX_SUM_ROUNDS = 1024  # of a session
_HEADER, _JSON, _TYPE = "header", "json", "type"

Part = Literal["train", "val", "test"]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# As many as three phases of the longest that the settings allow; a hospital looks for files of each.
RoundNumber = Annotated[int, Field(ge=0, le=30_000)]
Spans = Annotated[tuple[tuple[RoundNumber, RoundNumber], ...], Field(max_length=100)]
SettingName = Annotated[str, StringConstraints(max_length=64)]
SettingValue = Annotated[str, StringConstraints(max_length=10_000)] | int | float | bool
SiteName = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f/\\]{1,200}$")]


class Message(BaseModel):
    """A JSON header and named arrays. Subclasses add their fields; numpy arrays are kept out of the JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    array_fields: ClassVar[tuple[str, ...]] = ()

    def to_record(self) -> RecordDict:
        """The message as Flower carries it."""
        header: dict[str, ConfigRecordValues] = {
            _TYPE: type(self).__name__,
            _JSON: self.model_dump_json(exclude=set(self.array_fields)),
        }
        records: dict[str, ArrayRecord | ConfigRecord] = {_HEADER: ConfigRecord(header)}
        for field in self.array_fields:
            arrays = getattr(self, field)
            records[field] = ArrayRecord({name: Array(np.asarray(value)) for name, value in arrays.items()})
        return RecordDict(records)  # type: ignore[arg-type]

    @classmethod
    def from_record(cls, record: RecordDict) -> Self:
        """The message that `to_record` packed.

        Raises:
            ProtocolError: another type, a missing or unknown field, or arrays that cannot be read.
        """
        header = record.config_records.get(_HEADER, ConfigRecord())
        if header.get(_TYPE) != cls.__name__:
            raise ProtocolError(f"message: expected a {cls.__name__}, got {str(header.get(_TYPE))[:40]!r}.")
        try:
            fields = cls.model_validate_json(str(header.get(_JSON)))
        except ValidationError as error:
            n_faults = error.error_count()
            raise ProtocolError(
                f"{cls.__name__}: expected the agreed fields and arrays, got {n_faults} others."
            ) from error
        if set(record) != {_HEADER, *cls.array_fields}:
            raise ProtocolError(f"{cls.__name__}: expected the agreed fields and arrays, got other records.")
        arrays = {field: _read_arrays(record, field, cls.__name__) for field in cls.array_fields}
        return fields.model_copy(update=arrays)


def _read_arrays(record: RecordDict, field: str, message: str) -> dict[str, np.ndarray]:
    """The arrays of one field.

    Raises:
        ProtocolError: the field is missing, or an array cannot be read.
    """
    if field not in record.array_records:
        raise ProtocolError(f"{message}: expected the agreed fields and arrays, got no {field}.")
    arrays = {}
    for name, array in record.array_records[field].items():
        try:
            value = array.numpy()
        except Exception as error:
            raise ProtocolError(
                f"{message}: expected the agreed fields and arrays in numpy's format, got {type(error).__name__}."
            ) from error
        if not isinstance(value, np.ndarray):
            raise ProtocolError(f"{message}: expected the agreed fields and arrays in numpy's format, got an archive.")
        arrays[name] = value
    return arrays


def told_protocol(record: RecordDict) -> tuple[str, int] | None:
    """Version of hipfed ("" where it does not say) and of the protocol of a question that may be of another version.

    None where it names no protocol.
    """
    try:
        header = json.loads(str(record.config_records[_HEADER][_JSON]))
        return str(header.get("hipfed", ""))[:40], int(header["study"]["protocol"])
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def is_message(record: RecordDict, message: type[Message]) -> bool:
    """True if the record holds this type of message."""
    return record.config_records.get(_HEADER, ConfigRecord()).get(_TYPE) == message.__name__


def count_bytes(record: RecordDict) -> int:
    """Payload of a record: array data and header text, without Flower's framing."""
    arrays = sum(len(array.data) for arrays in record.array_records.values() for array in arrays.values())
    headers = sum(len(str(value)) for config in record.config_records.values() for value in config.values())
    return arrays + headers


class SumRound(BaseModel):
    """The secure sum that a question's answers go into: a session of hospitals, and its next round.

    Attributes:
        session: hash of the session.
        round: of the session; a hospital answers it once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    session: Sha256
    round: int = Field(ge=0, lt=MAX_SUM_ROUNDS)


class StudyReference(BaseModel):
    """What every question repeats, so that a hospital needs no memory of earlier ones.

    Attributes:
        run_id: random name of the run; it decides nothing.
        protocol: must equal the hospital's own PROTOCOL_VERSION.
        schema_sha256: must equal the hash of the hospital's own schema.toml.
        settings: all run settings by kebab-case key.
        sum_round: where the answers are summed securely: the hospital answers with masked integers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str = Field(pattern=r"^[a-z0-9-]{1,64}$")
    protocol: int
    schema_sha256: Sha256
    settings: dict[SettingName, SettingValue] = Field(max_length=200)
    sum_round: SumRound | None = None


class Request(Message):
    """A question of the coordinator."""

    study: StudyReference


class HandshakeRequest(Request):
    """Coordinator to hospital: will you take part? The hospital checks versions, schema and its data.

    Attributes:
        hipfed: the coordinator's version; "" where it does not say.
    """

    hipfed: str = Field(default="", pattern=r"^[0-9A-Za-z.+!-]{0,40}$")


class HandshakeReply(Message):
    """Hospital to coordinator: yes.

    Attributes:
        site: the hospital's name, as its folder or its enrolment calls it.
        version: its hipfed version.
        modalities: those that at least one of its patients has.
        extensions: package and version by what it adds to the study, see `used_extensions`.
        signing_key: public key with which it signs the keys of secure sums; "" where it takes part in none.
    """

    site: SiteName
    version: str
    modalities: list[str]
    extensions: dict[str, str] = Field(default_factory=dict, max_length=100)
    signing_key: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")


class ReferenceRequest(Request):
    """Coordinator to hospital: the sums behind the data-quality reference, over your training part."""


class QualityRequest(Request):
    """Coordinator to hospital: judge your training part against the others, whose sums are these less your own.

    Attributes:
        n_sites: hospitals in the total, all of which are judged: so many more tests are made.
        reference: `reference_quantities` summed over the hospitals that answered, this one among them.
    """

    array_fields: ClassVar[tuple[str, ...]] = ("reference",)
    n_sites: int = Field(ge=1, le=MAX_SITES)
    reference: dict[str, np.ndarray] = Field(default_factory=dict)


Row = Annotated[str, StringConstraints(max_length=1_000_000)]


class QualityReply(Message):
    """Hospital to coordinator: what is amber or red of its data, if the small-cell rule lets it.

    Attributes:
        row: JSON of `quality.QualityReport`, or of the suppressed row.
    """

    row: Row


class StatisticsRequest(Request):
    """Coordinator to hospital: the sums behind the common preprocessing, over your training part.

    Attributes:
        totals: of the questions before this one, by `statistics.stack_totals`; empty in the first.
    """

    array_fields: ClassVar[tuple[str, ...]] = ("totals",)
    totals: dict[str, np.ndarray] = Field(default_factory=dict)


class SumsReply(Message):
    """Hospital to reducer: arrays that are added over hospitals and read only as a total."""

    array_fields: ClassVar[tuple[str, ...]] = ("arrays",)
    arrays: dict[str, np.ndarray] = Field(default_factory=dict)


class TrainRequest(Request):
    """Coordinator to hospital: validate these weights, then train them for a round.

    Attributes:
        phase: what trains.
        round_number: rounds done before this one, over all phases.
        weights_round: of those, the rounds that made the weights.
        discarded: ranges (after, up to) of rounds whose weights were dropped when a phase went back to its best round.
        preprocessing: JSON of the common Preprocessing.
        event_weight: weight of an event in the loss.
        networks_sha256: hash of the networks that never change in the run.
        frozen_sha256: hash of the other weights that the phase needs and does not train.
        weights: what changes in this phase, by parameter name.
        networks: what never changes, by parameter name; empty once the hospital has answered in this run.
        frozen: what else the phase needs and does not train; empty once the hospital has answered in this phase.
        control: SCAFFOLD's control variate of all hospitals, by parameter name; empty in a phase's first round.
        counted_round: the last round of this phase in which this hospital's answer counted, so that it goes on from the
            control variate which it kept then; 0 = none.
    """

    array_fields: ClassVar[tuple[str, ...]] = ("weights", "networks", "frozen", "control")
    phase: Phase
    round_number: RoundNumber
    weights_round: RoundNumber
    discarded: Spans = ()
    preprocessing: str
    event_weight: float = Field(gt=0)
    networks_sha256: Sha256
    frozen_sha256: Sha256
    weights: dict[str, np.ndarray] = Field(default_factory=dict)
    networks: dict[str, np.ndarray] = Field(default_factory=dict)
    frozen: dict[str, np.ndarray] = Field(default_factory=dict)
    control: dict[str, np.ndarray] = Field(default_factory=dict)
    counted_round: RoundNumber = 0


class WholeModelRequest(Request):
    """A question about a whole model, which travels once: a hospital that lacks it asks for it by a Refusal.

    Attributes:
        phase: which prediction counts: the mean unimodal logit or the fused one.
        weights_round: rounds that made these weights.
        discarded: as in TrainRequest.
        trained_phases: phases whose rounds are among those: what of them stays at home, the hospital must have.
        preprocessing: JSON of the common Preprocessing.
        event_weight: as in training; logits are corrected for it.
        networks_sha256: as in TrainRequest.
        weights_sha256: hash of the whole model.
        part: which patients.
        networks: what never changes, by parameter name; empty where the hospital should hold it.
        weights: all else, likewise.
    """

    array_fields: ClassVar[tuple[str, ...]] = ("networks", "weights")
    phase: Phase
    weights_round: RoundNumber
    discarded: Spans = ()
    trained_phases: tuple[Phase, ...] = ()
    preprocessing: str
    event_weight: float = Field(gt=0)
    networks_sha256: Sha256
    weights_sha256: Sha256
    part: Part
    networks: dict[str, np.ndarray] = Field(default_factory=dict)
    weights: dict[str, np.ndarray] = Field(default_factory=dict)


class ComponentsRequest(WholeModelRequest):
    """Coordinator to hospital: sums of the features of your images, for encoders that stay fixed."""


class EvaluateRequest(WholeModelRequest):
    """Coordinator to hospital: score one part of your patients with this model.

    Attributes:
        release_row: whether the hospital may also release a row of its own.
    """

    release_row: bool


class BackgroundRequest(WholeModelRequest):
    """Coordinator to hospital: sums of the embeddings of one part, for the common background."""


class ExplainRequest(WholeModelRequest):
    """Coordinator to hospital: Shapley values of one part against this background, as sums.

    Attributes:
        background_id: hash of the background and the model.
        features: whether to share modalities' values out over their features.
        release_row: whether the hospital may also release a row of its own.
        background: embeddings of the synthetic reference patients, by modality.
        background_present: whether each of them has the modality.
    """

    array_fields: ClassVar[tuple[str, ...]] = (*WholeModelRequest.array_fields, "background", "background_present")
    background_id: Sha256
    features: bool
    release_row: bool
    background: dict[str, np.ndarray] = Field(default_factory=dict)
    background_present: dict[str, np.ndarray] = Field(default_factory=dict)


class SpreadRequest(WholeModelRequest):
    """Coordinator to hospital: your part of the random-effects statistics at this variance between hospitals.

    Attributes:
        background_id: as in ExplainRequest, likewise `background` and `background_present`.
        tau2: per modality.
    """

    array_fields: ClassVar[tuple[str, ...]] = (*WholeModelRequest.array_fields, "background", "background_present")
    background_id: Sha256
    tau2: tuple[Annotated[float, Field(ge=0)], ...]
    background: dict[str, np.ndarray] = Field(default_factory=dict)
    background_present: dict[str, np.ndarray] = Field(default_factory=dict)


class EvaluateReply(SumsReply):
    """Hospital to coordinator: sums of its scores for the reducer and, if the small-cell rule lets it, its own row.

    Attributes:
        row: JSON of the hospital's own metrics, or of the suppressed row.
    """

    row: Row


class ExplainReply(SumsReply):
    """Hospital to coordinator: sums of its Shapley values and, if the small-cell rule lets it, its own shares.

    Attributes:
        row: JSON of the hospital's own shares, or of the suppressed row.
    """

    row: Row


class Refusal(Message):
    """Hospital to coordinator: no, and why.

    Attributes:
        site: the hospital's name.
        code: `needs-weights` asks for what the question left out; `refused` is everything else.
        reason: rule names and counts; never a value, an identifier or a path.
    """

    site: SiteName
    code: Literal["refused", "needs-weights"] = "refused"
    reason: str = Field(max_length=2000)
