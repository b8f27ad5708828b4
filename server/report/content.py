"""A run folder read for the report."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from server.report.explained import Explanation
from server.report.records import Config, ModelFile, Quality, Round, TestPart
from server.run_folder.folder import CONFIG, read_status
from shared_model.errors import StudyError

T = TypeVar("T")

_DEATHS = frozenset({"death", "deaths", "dead", "died", "mortality", "deceased", "fatal", "exitus"})
_DOUBTS = frozenset(
    {"or", "not", "no", "non", "without", "composite", "readmission", "readmitted", "alive", "survival"}
    | {"survive", "survived", "survivor", "survivors"}
)
_NAMELESS = frozenset({"outcome", "event", "events", "label", "target", "y"})  # columns that leave it to the title


@dataclass(frozen=True)
class RunContent:
    """What a run folder says; None is a file that the run did not come to.

    Attributes:
        name: of the folder.
        state: running, completed, interrupted or failed.
        reason: why it failed.
        config: what decides the run; of pooled folds, the first one's.
        rounds: of training.
        quality: of the hospitals' data.
        test: metrics of the test part.
        folds: whose pooled predictions `test` is about; empty for a single run.
        explanation: what the model looks at.
        model: hashes and phases.
    """

    name: str
    state: str
    reason: str = ""
    config: Config | None = None
    rounds: tuple[Round, ...] = ()
    quality: Quality | None = None
    test: TestPart | None = None
    folds: tuple[int, ...] = ()
    explanation: Explanation | None = None
    model: ModelFile | None = None

    @property
    def counts_deaths(self) -> bool:
        """True if the outcome is death, see `names_deaths`."""
        if self.config is None:
            return False
        study = self.config.schema_.study
        return names_deaths(title=study.title, outcome=study.outcome)

    def hospitals_left(self) -> tuple[str, ...]:
        """Hospitals that were asked in a round and are no more among those that take part, or were excluded."""
        config = self.config
        told = {*(member.site for member in config.roster), *config.excluded} if config else set()
        return tuple(sorted({name for one in self.rounds for name in one.asked} - told))

    def training_counts(self) -> tuple[int, int] | None:
        """Patients and events that the preprocessing rests on; None where the run has none, or they are too few."""
        if self.model is None or self.config is None:
            return None
        try:
            known = json.loads(self.model.preprocessing)
            n, events = int(known["n"]), int(known["events"])
        except (ValueError, KeyError, TypeError):
            return None
        smallest = [int(self.config.settings.get(f"min-{what}", 10)) for what in ("patients", "events", "non-events")]
        enough = all(count >= least for count, least in zip((n, events, n - events), smallest, strict=True))
        return (n, events) if enough else None


def names_deaths(*, title: str, outcome: str) -> bool:
    """True if a study's outcome is clearly death: its column says so, or the title where the column says nothing.

    Whole words count. A word that may turn the meaning, as in `death or readmission`, makes it unclear.
    """
    column, others = _words(outcome), _words(title)
    if (column | others) & _DOUBTS:
        return False
    return bool((others if column <= _NAMELESS else column) & _DEATHS)


def _words(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]+", text.lower()))


def read_run(path: Path) -> RunContent:
    """What a run folder says.

    Raises:
        StudyError: it is no run folder, or a file in it is not what a run writes.
    """
    state, reason = read_status(path)
    if state == "missing":
        raise StudyError(f"{path}: expected a run folder with status.json, got none. Give the folder of a run.")
    metrics = _read(path / "metrics.json")
    metrics = {} if metrics is None else metrics
    if not isinstance(metrics, dict):
        raise StudyError(f"{path / 'metrics.json'}: expected a JSON object, got another value. Run the study again.")
    folds = tuple(metrics.get("folds", ()))
    config = path / CONFIG if not folds else path / f"fold-{folds[0]}" / CONFIG
    return RunContent(
        name=path.resolve().name,
        state=state,
        reason=reason,
        config=_parse(config, Config, _read(config)),
        rounds=tuple(_read_rounds(path / "rounds.jsonl")),
        quality=_parse(path / "quality.json", Quality, _read(path / "quality.json")),
        test=_parse(path / "metrics.json", TestPart, metrics.get("test")),
        folds=folds,
        explanation=_parse(path / "explanations.json", Explanation, _read(path / "explanations.json")),
        model=_parse(path / "model.json", ModelFile, _read(path / "model.json")),
    )


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: expected a JSON file of a run, got: {error}. Run the study again.") from error


def _read_rounds(path: Path) -> Iterable[Round]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rounds = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: expected a JSON object a line, got: {error}. Run the study again.") from error
    for line in rounds:
        parsed = _parse(path, Round, line)
        if parsed is not None:
            yield parsed


def _parse(path: Path, kind: type[T], content: object) -> T | None:
    if content is None:
        return None
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise StudyError(
            f"{path}: expected the fields of a run, got at {where}: {first['msg']}. "
            "Use the version of hipfed that wrote it, or run the study again."
        ) from error
