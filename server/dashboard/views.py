"""A run in words: its state, its times, its row in the list."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from server.dashboard.records import RunSummary, State
from server.run_folder.reading import Tested
from shared_model.pages.blocks import Mark, Marked
from shared_model.pages.numbers import SUPPRESSED, interval, number
from shared_model.pages.wording import Words

MARKS: dict[State, Mark] = {
    "running": "unknown",
    "completed": "good",
    "failed": "red",
    "interrupted": "amber",
    "damaged": "red",
}
LONGEST_REASON = 160
_MINUTE, _HOUR = 60, 3600


@dataclass(frozen=True)
class ListRow:
    """A run in the list.

    Attributes:
        id: of its row in the page.
        name: of the run.
        path: of its page.
        state: a word with its mark.
        state_name: the state as `records` names it.
        reason: why it failed or what is wrong, cut.
        study: title of the study.
        hospitals: how many.
        progress: round and phase; "" once it ended.
        auc: of the test part, or why there is none.
        auc_ci: its interval, "" where there is none.
        patients: patients and events of the test part.
        changed: when it last changed.
        took: how long it took so far.
        keys: what columns are sorted by.
    """

    id: str
    name: str
    path: str
    state: Marked
    state_name: State
    reason: str
    study: str
    hospitals: str
    progress: str
    auc: str
    auc_ci: str
    patients: str
    changed: datetime
    took: str
    keys: dict[str, str]


def describe_row(run: RunSummary, words: Words) -> ListRow:
    """A run's row."""
    pooled = run.tested.part.pooled if run.tested else None
    auc = pooled.auc if pooled else None
    return ListRow(
        id=f"run-{hashlib.sha256(run.name.encode()).hexdigest()[:16]}",
        name=run.name,
        path=quote(run.name),
        state=describe_state(run.state, words),
        state_name=run.state,
        reason=_cut(run.reason) if run.state != "completed" else "",
        study=run.study,
        hospitals="" if run.n_hospitals is None else str(run.n_hospitals),
        progress=describe_progress(run, words) if run.state != "completed" else "",
        auc=describe_auc(run.tested, words),
        auc_ci=words("list.ci", ci=interval(pooled.auc_ci)) if pooled and pooled.auc_ci else "",
        patients=words("list.patients", n=pooled.n, events=pooled.events) if pooled else "",
        changed=run.changed,
        took=describe_took(run, words),
        keys={
            "name": run.name.lower(),
            "state": run.state,
            "study": run.study.lower(),
            "hospitals": str(run.n_hospitals or 0),
            "auc": str(-1.0 if auc is None else auc),
            "changed": str(run.changed.timestamp()),
        },
    )


def describe_state(state: State, words: Words) -> Marked:
    """A state's word and mark."""
    return Marked(words(f"state.{state}"), MARKS[state])


def describe_progress(run: RunSummary, words: Words) -> str:
    """Round and phase of the last round."""
    if run.last is None:
        return words("list.no_round")
    return words("list.progress", round=run.last.round, phase=run.last.phase)


def describe_auc(tested: Tested | None, words: Words) -> str:
    """The test part's AUC in words where it is no number."""
    if tested is None:
        return words("list.no_auc")
    return SUPPRESSED if tested.part.pooled is None else number(tested.part.pooled.auc)


def describe_took(run: RunSummary, words: Words) -> str:
    """How long the last attempt has taken, by the times of its files; "" where they do not tell."""
    if run.started is None or run.changed < run.started:
        return ""
    return describe_seconds((run.changed - run.started).total_seconds(), words)


def describe_seconds(seconds: float, words: Words) -> str:
    """A duration with two units at most."""
    whole = round(seconds)
    if whole < _MINUTE:
        return words("time.seconds", s=whole)
    if whole < _HOUR:
        return words("time.minutes", min=whole // _MINUTE, s=f"{whole % _MINUTE:02}")
    return words("time.hours", h=whole // _HOUR, min=f"{whole % _HOUR // _MINUTE:02}")


def describe_time(moment: datetime) -> str:
    """A moment in UTC."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"
