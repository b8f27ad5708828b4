"""The study schema (schema.toml): which modalities there are, their variables, units and ranges.

The schema is the same for every hospital; its hash is compared in the handshake. Names of variables are spelled in it
and nowhere else.
"""

import hashlib
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    StringConstraints,
    ValidationError,
    model_validator,
)

from shared_model import extensions
from shared_model.errors import SchemaError
from shared_model.plain_text import plain_text

STATIC = "static"
KINDS = (STATIC, "series", "events", "images")


def _plain(value: object) -> object:
    return plain_text(value) if isinstance(value, str) else value


Name = Annotated[str, BeforeValidator(_plain), StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
Text = Annotated[str, AfterValidator(plain_text)]
"""Compared with the cells of tables, so in their form."""
Range = tuple[float, float]


class SchemaPart(BaseModel):
    """A part of a schema: what a study says of one thing."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _check_range(name: str, limits: Range) -> None:
    if not limits[0] < limits[1]:
        raise ValueError(f"range of {name}: expected [lo, hi] with lo < hi, got {list(limits)}")


class StudyIdentity(SchemaPart):
    """Identity of the study and the two columns of patients.* that are not predictors."""

    name: Name
    title: str = Field(min_length=1, max_length=200)
    outcome: Name
    patient_id: Name


class StaticColumn(SchemaPart):
    """One column of patients.*: numeric (unit, range), binary (0/1) or categorical (levels)."""

    name: Name
    kind: Literal["numeric", "binary", "categorical"]
    unit: Text = ""
    range: Range | None = None
    levels: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        if self.kind == "numeric":
            if self.range is None:
                raise ValueError(f"static {self.name}: a numeric column needs range = [lo, hi]")
            _check_range(self.name, self.range)
        elif self.range is not None:
            raise ValueError(f"static {self.name}: range belongs to numeric columns, this one is {self.kind}")
        if (self.kind == "categorical") != bool(self.levels):
            raise ValueError(f"static {self.name}: levels = [...] belong to categorical columns, and only to them")
        if len(set(self.levels)) != len(self.levels):
            raise ValueError(f"static {self.name}: a level is listed twice")
        return self


class Channel(SchemaPart):
    """One measured quantity of a series."""

    name: Name
    unit: Text = ""
    range: Range

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_range(self.name, self.range)
        return self


class Series(SchemaPart):
    """Measurements over time, on the grid start, start + step, ..., `steps` cells (each cell is half open)."""

    time_unit: Text
    start: float = 0.0
    step: float = Field(gt=0)
    steps: int = Field(ge=1, le=10_000)
    channels: tuple[Channel, ...] = Field(min_length=1)


class Events(SchemaPart):
    """A set of items that a patient did or did not get: any (0/1), count, or summed dose, per item."""

    aggregate: Literal["any", "count", "dose"]
    items: tuple[Text, ...] = Field(min_length=1)
    recorded: Name | None = None


class Images(SchemaPart):
    """One radiograph a patient, resized to `size` x `size` pixels.

    Below 33 pixels the last map of a ResNet is a single pixel, on which BatchNorm cannot train with one patient.

    Attributes:
        size: side of the square in pixels.
        several: which of several files of a patient counts, by the order of rows in images.*.
    """

    size: int = Field(ge=33, le=1024)
    # Left out of the hash where it is the default: studies from before there was the key keep theirs.
    several: Literal["first", "last", "refuse"] = Field(
        default="refuse", exclude_if=lambda several: several == "refuse"
    )


class Schema(SchemaPart):
    """A whole study. Modalities keep the order static, series, events, images, each as written in the file."""

    study: StudyIdentity
    static: tuple[StaticColumn, ...] = Field(min_length=1)
    series: Mapping[Name, Series] = Field(default_factory=dict)
    events: Mapping[Name, Events] = Field(default_factory=dict)
    images: Mapping[Name, Images] = Field(default_factory=dict)
    # Sections of kinds that other packages add; left out of the hash where there are none.
    further: Mapping[str, Mapping[Name, SerializeAsAny[SchemaPart]]] = Field(
        default_factory=dict, exclude_if=lambda further: not further
    )

    @model_validator(mode="before")
    @classmethod
    def _read_further_kinds(cls, content: Any) -> Any:
        """Sections that are none of hipfed's, read as the package that adds the kind says."""
        if not isinstance(content, dict):
            return content
        own = {name: value for name, value in content.items() if name in cls.model_fields and name != "further"}
        told = content.get("further", {})
        if not isinstance(told, Mapping) or told.keys() & set(KINDS):
            raise ValueError("further: expected sections of kinds that packages add, got something else")
        sections = {**told, **{name: content[name] for name in content.keys() - cls.model_fields}}
        return {**own, "further": {kind: _read_section(kind, sections[kind]) for kind in sorted(sections)}}

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        _refuse_duplicates("static column", [column.name for column in self.static])
        # The last four are names of files, and of the sums of the static columns in the statistics message.
        names = [
            STATIC,
            *self.series,
            *self.events,
            *self.images,
            *(name for each in self.further.values() for name in each),
        ]
        _refuse_duplicates("modality", [*names, "patients", "images", "numbers", "levels"])
        for name, series in self.series.items():
            columns = ["time", self.study.patient_id, *(channel.name for channel in series.channels)]
            _refuse_duplicates(f"channel of {name}", columns)
        for name, events in self.events.items():
            _refuse_duplicates(f"item of {name}", list(events.items))
            if events.recorded in {self.study.outcome, self.study.patient_id}:
                raise ValueError(f"events.{name}.recorded: column {events.recorded} is the outcome or the patient id")
        predictors = {column.name for column in self.static}
        for role, column in (("outcome", self.study.outcome), ("patient_id", self.study.patient_id)):
            if column in predictors:
                raise ValueError(f"study.{role}: column {column} is also a static predictor")
        if self.study.outcome == self.study.patient_id:
            raise ValueError("study.outcome and study.patient_id name the same column")
        return self

    @property
    def modalities(self) -> tuple[str, ...]:
        """Every modality of the study, in the order static, series, events, images, then other packages' kinds."""
        return tuple(self.kinds)

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of every modality by name."""
        sections = {"series": self.series, "events": self.events, "images": self.images, **self.further}
        return {STATIC: STATIC} | {name: kind for kind, section in sections.items() for name in section}

    @property
    def tables(self) -> tuple[str, ...]:
        """The modalities that have a table of their own, named after them: all but static columns and images."""
        return tuple(name for name, kind in self.kinds.items() if kind not in {STATIC, "images"})

    @property
    def numbers(self) -> tuple[StaticColumn, ...]:
        """The numeric and binary static columns, in schema order."""
        return tuple(column for column in self.static if column.kind != "categorical")

    @property
    def categories(self) -> tuple[StaticColumn, ...]:
        """The categorical static columns, in schema order."""
        return tuple(column for column in self.static if column.kind == "categorical")

    @property
    def sha256(self) -> str:
        """Hash of the content: two files that differ in comments or spacing only have the same hash."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def _read_section(kind: str, section: Any) -> dict[str, Any]:
    """Modalities of a kind that another package adds.

    Raises:
        ValueError: no package has the kind, or it is not a table of modalities.
    """
    known = extensions.known_names(extensions.MODALITIES, KINDS)
    if kind not in known:
        raise ValueError(
            f"section {kind!r}: expected a kind of modality that is installed ({', '.join(known)}), got another. "
            "Correct its name, or install the package that adds it."
        )
    part_type = extensions.load(extensions.MODALITIES, kind).part_type
    if not isinstance(section, dict):
        raise ValueError(f"{kind}: expected one section a modality, such as [{kind}.notes]")  # noqa: TRY004 - pydantic
    return {name: part_type.model_validate(value) for name, value in section.items()}


def _refuse_duplicates(what: str, names: Sequence[str]) -> None:
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    if twice:
        raise ValueError(f"duplicate {what}: {', '.join(twice)}")


def parse_schema(text: str, *, source: str) -> Schema:
    """Schema from TOML text.

    Args:
        text: content of a schema.toml.
        source: file name for messages.

    Raises:
        SchemaError: not TOML, or not a valid study; the message lists every fault.
    """
    try:
        return Schema.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SchemaError(f"{source}: expected TOML, got: {error}") from error
    except ValidationError as error:
        faults = [
            f"{source}: {'.'.join(str(part) for part in fault['loc']) or 'study'}: "
            + re.sub(r"^Value error, ", "", fault["msg"])
            for fault in error.errors()
        ]
        raise SchemaError("\n".join(faults)) from error


def load_schema(path: Path) -> Schema:
    """Schema from a file.

    Raises:
        SchemaError: the file cannot be read as UTF-8 text, or is not a valid study.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin with a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(f"{path}: expected a readable UTF-8 file, got: {error}") from error
    return parse_schema(text, source=path.name)
