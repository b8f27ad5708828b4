"""A run folder's files read into their records.

Each `parse_...` takes a file's bytes and raises StudyError without the file's name: who reads the file adds it.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from server.run_folder.explanation import Explanation
from server.run_folder.records import Config, ModelFile, Quality, Round, TestPart
from shared_model.errors import StudyError

T = TypeVar("T")

_CONFIG, _QUALITY, _MODEL = TypeAdapter(Config), TypeAdapter(Quality), TypeAdapter(ModelFile)
_ROUND, _TEST, _EXPLANATION = TypeAdapter(Round), TypeAdapter(TestPart), TypeAdapter(Explanation)
_FOLDS = TypeAdapter(tuple[int, ...])


@dataclass(frozen=True)
class Tested:
    """metrics.json.

    Attributes:
        part: the `test` entry.
        folds: whose predictions were pooled; empty for a single run.
    """

    part: TestPart
    folds: tuple[int, ...]


def read_record(path: Path, parse: Callable[[bytes], T]) -> T | None:
    """What `parse` makes of a file; None if there is none.

    Raises:
        StudyError: it cannot be read, or is not what a run writes.
    """
    try:
        return parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StudyError(f"{path}: expected a file that can be read, got: {error.strerror}.") from error
    except StudyError as error:
        raise StudyError(f"{path}: {error} Use the version of hipfed that wrote it, or run the study again.") from error


def parse_config(content: bytes) -> Config:
    """config.json."""
    return _validate(_CONFIG.validate_python, parse_object(content))


def parse_quality(content: bytes) -> Quality:
    """quality.json."""
    return _validate(_QUALITY.validate_python, parse_object(content))


def parse_model(content: bytes) -> ModelFile:
    """model.json."""
    return _validate(_MODEL.validate_python, parse_object(content))


def parse_explanation(content: bytes) -> Explanation:
    """explanations.json."""
    return _validate(_EXPLANATION.validate_python, parse_object(content))


def parse_tested(content: bytes) -> Tested | None:
    """metrics.json; None where the run did not come to its test part."""
    return _tested(parse_object(content), leave_out=())


def parse_pooled(content: bytes) -> Tested | None:
    """As `parse_tested`, without what a list of runs does not show: the curves and each hospital's metrics."""
    return _tested(parse_object(content), leave_out=("curves", "sites"))


def _tested(metrics: Mapping[str, object], *, leave_out: tuple[str, ...]) -> Tested | None:
    part = metrics.get("test")
    if part is None:
        return None
    if isinstance(part, dict):
        part = {name: value for name, value in part.items() if name not in leave_out}
    return Tested(_validate(_TEST.validate_python, part), _validate(_FOLDS.validate_python, metrics.get("folds", ())))


def parse_rounds(content: bytes) -> tuple[Round, ...]:
    """rounds.jsonl; a last line that is being written is left out."""
    return tuple(_parse_round(line) for line in _split(content))


def parse_last_round(content: bytes) -> Round | None:
    """The last round of the end of rounds.jsonl, whose first line may be cut."""
    lines = _split(content)
    return _parse_round(lines[-1]) if lines else None


def _split(content: bytes) -> list[bytes]:
    whole, _, unfinished = content.rpartition(b"\n")
    lines = [line for line in whole.split(b"\n") if line.strip()]
    if unfinished.strip() and _is_json(unfinished):
        lines.append(unfinished)
    return lines


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _parse_round(line: bytes) -> Round:
    return _validate(_ROUND.validate_python, parse_object(line))


def parse_object(content: bytes) -> dict[str, object]:
    """A JSON object.

    Raises:
        StudyError: it is none.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StudyError(f"expected JSON of a run, got: {str(error)[:200]}.") from error
    if not isinstance(value, dict):
        raise StudyError("expected a JSON object, got another value.")
    return value


def _validate(check: Callable[[object], T], content: object) -> T:
    try:
        return check(content)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:80] or "the top"
        raise StudyError(f"expected the fields of a run, got at {where}: {first['msg'][:200]}.") from error
