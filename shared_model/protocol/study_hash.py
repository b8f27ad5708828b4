"""The hash by which a hospital approves a study: over all that decides it.

The hash covers the schema, every setting (defaults filled in, so also seed and fold: each fold is a study of its own)
and the protocol's version, which decides what a study asks for; hipfed's own version is no part of it. The name of a
run is none either: a run that is resumed or repeated is the same study. STUDY.json carries all of this from the
coordinator to the hospital, to be read by people.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared_model.config import Scalar, Settings, parse_settings
from shared_model.errors import StudyFileError
from shared_model.schema import Schema
from shared_model.version import own_version

SHOWN_DIGITS = 12


def study_hash(*, schema_sha256: str, settings: Mapping[str, Scalar], protocol: int) -> str:
    """SHA-256 of a study, in hex.

    Args:
        schema_sha256: of the schema.
        settings: all of them, as `Settings.to_config` gives them.
        protocol: version of the protocol.
    """
    content = {
        "protocol": protocol,
        "schema_sha256": schema_sha256,
        "settings": dict(settings),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class StudyFile(BaseModel):
    """STUDY.json. Coordinator to hospital, by hand.

    Attributes:
        format: of this file.
        hipfed: version that wrote the file.
        protocol: version that the study is for.
        study: the schema.
        settings: all of them, by kebab-case key.
        sha256: `study_hash` of the rest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    hipfed: str = Field(pattern=r"^[0-9A-Za-z.+!-]{1,40}$")
    protocol: int
    study: Schema
    settings: dict[str, Scalar]
    sha256: str

    @classmethod
    def of(cls, schema: Schema, settings: Settings, *, protocol: int) -> Self:
        """The file of a study for the installed version."""
        values = settings.to_config()
        sha256 = study_hash(schema_sha256=schema.sha256, settings=values, protocol=protocol)
        return cls(hipfed=own_version(), protocol=protocol, study=schema, settings=values, sha256=sha256)

    def changed_settings(self) -> dict[str, Scalar]:
        """The settings that differ from the defaults."""
        defaults = parse_settings({}).to_config()
        return {key: value for key, value in self.settings.items() if value != defaults.get(key)}

    def check_version(self, *, protocol: int) -> None:
        """The study is for the protocol that is installed here: another one would ask for other things.

        Raises:
            StudyFileError: it is not.
        """
        if self.protocol != protocol:
            raise StudyFileError(
                f"study {self.sha256[:SHOWN_DIGITS]}: expected one for protocol {protocol}, which hipfed "
                f"{own_version()} has, got one for protocol {self.protocol} of hipfed {self.hipfed}. Make a new one, "
                "and have it approved."
            )

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"

    def check(self, *, source: str) -> None:
        """The hash is that of the content.

        Raises:
            StudyFileError: it is not.
        """
        found = study_hash(schema_sha256=self.study.sha256, settings=self.settings, protocol=self.protocol)
        if found != self.sha256:
            raise StudyFileError(
                f"{source}: expected the hash {found[:SHOWN_DIGITS]} of its content, got {self.sha256[:SHOWN_DIGITS]}. "
                "The file was changed by hand; ask the coordinator for a new one."
            )


def read_study(path: Path) -> StudyFile:
    """A study from its file.

    Raises:
        StudyFileError: the file cannot be read, is not such a file, or its hash is of another content.
    """
    try:
        study = StudyFile.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StudyFileError(f"{path}: expected a readable file of `hipfed-server study`, got: {error}.") from error
    except ValidationError as error:
        places = sorted({".".join(str(part) for part in fault["loc"]) or "all of it" for fault in error.errors()})
        raise StudyFileError(
            f"{path}: expected a file of `hipfed-server study`, got faults at {', '.join(places[:5])}. "
            "Ask the coordinator for the file."
        ) from error
    study.check(source=path.name)
    return study
