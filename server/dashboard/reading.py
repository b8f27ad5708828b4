"""Runs read from their files. Whatever is wrong with a run is told in its own record, and no other run suffers."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TypeVar

from server.dashboard.file_cache import FileCache, Fingerprint, find_file
from server.dashboard.folder import RunPlace, find_run, list_runs
from server.dashboard.locks import is_worked_on, read_lock_table
from server.dashboard.records import RunDetail, RunSummary, State
from server.run_folder.folder import CONFIG
from server.run_folder.lock import APP_LOCK
from server.run_folder.reading import (
    parse_config,
    parse_explanation,
    parse_last_round,
    parse_object,
    parse_pooled,
    parse_rounds,
)
from shared_model.errors import StudyError

T = TypeVar("T")
Locked = Callable[[], Collection[int] | None]  # the system's table is long: it is read only where a run goes on

# A run whose lock nobody holds and that has written nothing for so long is told as interrupted: it may have just
# begun or ended, or another machine may work on it.
QUIET_S = 30.0
TAIL_BYTES = 256 * 1024  # of rounds.jsonl, for its last line

_TIMES = ("status.json", CONFIG, "rounds.jsonl", "metrics.json", "explanations.json", "log.txt")

NOT_HELD = "No process of this machine works on the run. Where it was stopped or killed, --resume continues it."
NO_STATUS = (
    "status.json: expected the state of the run, got no file. The run has not begun, or its folder is not whole."
)


@dataclass(frozen=True)
class _Told:
    """What was told of a run, and of which versions of its files."""

    files: tuple[Fingerprint | None, ...]
    summary: RunSummary


class RunReader:
    """The runs of a folder.

    Args:
        root: the folder, as `open_runs` returns it.
        now: the time, UTC.
        locked: inodes of the files that processes have locked.
    """

    def __init__(
        self,
        root: Path,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        locked: Locked = read_lock_table,
    ) -> None:
        self._root, self._now, self._locked = root, now, locked
        self._files = FileCache()
        self._ended: dict[Path, _Told] = {}

    def list_summaries(self) -> tuple[RunSummary, ...]:
        """All runs, in the order of their names."""
        locked, places = cache(self._locked), list_runs(self._root)
        told = [self._summarise_again(place, places, locked) for place in places.values()]
        paths = [place.path for place in places.values()]
        ended = ("completed", "interrupted", "failed")
        self._ended = {path: one for path, one in zip(paths, told, strict=True) if one.summary.state in ended}
        return tuple(one.summary for one in told)

    def find(self, name: str) -> RunPlace | None:
        """Where a run lies; None if there is none of this name."""
        return find_run(self._root, name).get(name)

    def read_detail(self, name: str) -> RunDetail | None:
        """All that is shown of a run; None if there is none of this name."""
        places = find_run(self._root, name)
        place = places.get(name)
        if place is None:
            return None
        problems: list[str] = []
        explanation = self._try(place.path / "explanations.json", parse_explanation, problems)
        rounds = self._try(place.path / "rounds.jsonl", parse_rounds, problems) or ()
        config = self._try(_find_config(place, places), parse_config, problems)
        summary = self._summarise(place, places, cache(self._locked))
        if summary.state == "damaged" and summary.reason not in problems:
            problems.append(summary.reason)
        return RunDetail(summary, config, rounds, explanation, tuple(problems), place.folds)

    def _summarise_again(self, place: RunPlace, places: dict[str, RunPlace], locked: Locked) -> _Told:
        """As `_summarise`; of a run that has ended, what was told of the same files."""
        files = () if place.folds else _fingerprints(place)  # pooled folds rest on those of the folds, too
        former = self._ended.get(place.path)
        if former is not None and files and former.files == files:
            return former
        return _Told(files, self._summarise(place, places, locked))

    def _summarise(self, place: RunPlace, places: dict[str, RunPlace], locked: Locked) -> RunSummary:
        problems: list[str] = []
        status = self._try(place.path / "status.json", _parse_status, problems)
        config = self._try(_find_config(place, places), parse_config, problems)
        tested = self._try(place.path / "metrics.json", parse_pooled, problems)
        last = self._try(place.path / "rounds.jsonl", parse_last_round, problems, last_bytes=TAIL_BYTES)
        changed = self._last_change(place)
        state: State
        if problems:
            state, reason = "damaged", problems[0]
        elif status is None and place.folds:
            state, reason = self._judge_folds([places[fold] for fold in place.folds], locked)
        elif status is None:
            state, reason = self._judge_without_status(place, locked)
        else:
            state, reason = self._judge(place, *status, changed=changed, locked=locked)
        return RunSummary(
            name=place.name,
            state=state,
            reason=reason,
            study=(config.schema_.study.title or config.schema_.study.name) if config else "",
            n_hospitals=len(config.roster) if config else None,
            tested=tested,
            last=last,
            started=_time_of(place.path / (APP_LOCK if status and status[0] != "running" else "status.json")),
            changed=changed,
        )

    def _judge(
        self, place: RunPlace, told: State, reason: str, *, changed: datetime, locked: Locked
    ) -> tuple[State, str]:
        if told != "running" or (inodes := locked()) is None or is_worked_on(place.path, inodes):
            return told, reason
        is_quiet = (self._now() - changed).total_seconds() > QUIET_S
        return ("interrupted", NOT_HELD) if is_quiet else (told, reason)

    def _judge_without_status(self, place: RunPlace, locked: Locked) -> tuple[State, str]:
        begins = (inodes := locked()) is not None and is_worked_on(place.path, inodes)
        return ("running", "") if begins else ("damaged", NO_STATUS)

    def _judge_folds(self, folds: list[RunPlace], locked: Locked) -> tuple[State, str]:
        """A cross-validation has no state of its own before its folds are pooled."""
        places = {fold.name: fold for fold in folds}
        states = [self._summarise(fold, places, locked).state for fold in folds]
        reason = f"{states.count('completed')} of {len(folds)} folds that have begun are completed."
        return ("running" if "running" in states else "interrupted"), reason

    def _try(
        self, path: Path, parse: Callable[[bytes], T], problems: list[str], *, last_bytes: int | None = None
    ) -> T | None:
        try:
            return self._files.read(path, parse, last_bytes=last_bytes)
        except StudyError as error:
            problems.append(str(error))
            return None

    def _last_change(self, place: RunPlace) -> datetime:
        states = [find_file(place.path / name) for name in _TIMES]
        times = [state.st_mtime for state in states if state is not None]
        if not times:
            try:
                times = [place.path.stat().st_mtime]
            except OSError:
                times = [0.0]  # it was removed since; the next look does not find it
        return datetime.fromtimestamp(max(times), UTC)


def _fingerprints(place: RunPlace) -> tuple[Fingerprint | None, ...]:
    states = (find_file(place.path / name) for name in (*_TIMES, APP_LOCK))
    return tuple(Fingerprint.of(state) if state else None for state in states)


def _find_config(place: RunPlace, places: dict[str, RunPlace]) -> Path:
    """The run's own, or for pooled folds the first one's."""
    own = place.path / CONFIG
    return own if not place.folds or find_file(own) else places[place.folds[0]].path / CONFIG


def _time_of(path: Path) -> datetime | None:
    state = find_file(path)
    return None if state is None else datetime.fromtimestamp(state.st_mtime, UTC)


def _parse_status(content: bytes) -> tuple[State, str]:
    status = parse_object(content)
    state: State
    for state in ("running", "completed", "interrupted", "failed"):
        if status.get("state") == state:
            return state, str(status.get("reason", ""))
    raise StudyError(
        f"expected the state running, completed, interrupted or failed, got {str(status.get('state'))[:40]!r}."
    )
