"""A run folder read for the report."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from server.run_folder.explanation import Explanation
from server.run_folder.folder import CONFIG, read_status
from server.run_folder.reading import (
    parse_config,
    parse_explanation,
    parse_model,
    parse_quality,
    parse_rounds,
    parse_tested,
    read_record,
)
from server.run_folder.records import Config, ModelFile, Quality, Round, TestPart
from shared_model.errors import StudyError

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
    tested = read_record(path / "metrics.json", parse_tested)
    folds = tested.folds if tested else ()
    first = path / f"fold-{folds[0]}" if folds else path
    return RunContent(
        name=path.resolve().name,
        state=state,
        reason=reason,
        config=read_record(first / CONFIG, parse_config),
        rounds=read_record(path / "rounds.jsonl", parse_rounds) or (),
        quality=read_record(path / "quality.json", parse_quality),
        test=tested.part if tested else None,
        folds=folds,
        explanation=read_record(path / "explanations.json", parse_explanation),
        model=read_record(path / "model.json", parse_model),
    )
