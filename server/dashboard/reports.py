"""The report of a run: its report.html where that is the run's and ours, else made anew in memory."""

import threading
from collections import OrderedDict

from markupsafe import escape

from server.dashboard.file_cache import FileCache, Fingerprint, find_file
from server.dashboard.folder import RunPlace
from server.report.page import render_report
from server.report.writing import REPORT
from server.run_folder.folder import CONFIG
from shared_model.errors import StudyError
from shared_model.pages.document import page_policy

_FILES = (
    "status.json",
    CONFIG,
    "rounds.jsonl",
    "quality.json",
    "metrics.json",
    "explanations.json",
    "model.json",
)
_MOST_KEPT = 8


class Reports:
    """Reports of runs; what is made is kept while the files stay as they are."""

    def __init__(self) -> None:
        self._files = FileCache()
        self._made: OrderedDict[tuple[str, tuple[Fingerprint | None, ...]], str] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, place: RunPlace) -> str:
        """The report of a run, as HTML.

        Raises:
            StudyError: it cannot be made, or a file of the run is a link.
        """
        written = self._read_written(place)
        if written is not None:
            return written
        folders = [place.path, *(place.path / fold.rpartition("/")[2] for fold in place.folds)]
        paths = [folder / name for folder in folders for name in _FILES]
        for path in paths:
            if path.is_symlink():
                raise StudyError(f"{path.name}: expected a file, got a link. Put the file itself there.")
        states = [find_file(path) for path in paths]
        key = (place.name, tuple(None if state is None else Fingerprint.of(state) for state in states))
        with self._lock:  # one at a time: it takes a second of work
            if key not in self._made:
                self._made[key] = render_report(place.path)
                while len(self._made) > _MOST_KEPT:
                    self._made.popitem(last=False)
            return self._made[key]

    def _read_written(self, place: RunPlace) -> str | None:
        """report.html if it was written after the run's end and its scripts are those that may run here."""
        report, status = find_file(place.path / REPORT), find_file(place.path / "status.json")
        if report is None or status is None or report.st_mtime_ns < status.st_mtime_ns:
            return None
        text = self._files.read(place.path / REPORT, _decode)
        return text if text and _has_our_policy(text) else None


def _decode(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")


def _has_our_policy(text: str) -> bool:
    return str(escape(page_policy())) in text[:4096]
