"""Last contact of each hospital with the gateway, for `status` and for a waiting run.

A SuperNode asks for messages every 3 s, and says every 30 s that it lives while it works on one.
"""

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from shared_model.process.files import replace_file

SILENT = timedelta(seconds=45)
WRITE_S = 1.0
_LEAVING, _COMING, _ANSWERING = (f"/v1/fleet/{end}" for end in ("deactivate-node", "activate-node", "push-messages"))


@dataclass(frozen=True)
class Sighting:
    """What is known of a hospital.

    Attributes:
        last: when it was heard, UTC.
        left: whether it said goodbye then.
        question: kind of the question that it has and has not answered; "" if there is none.
        asked: when it got that, UTC.
    """

    last: datetime
    left: bool
    question: str = ""
    asked: datetime | None = None

    def is_connected(self, now: datetime) -> bool:
        """True if it is there, as far as can be told."""
        return not self.left and now - self.last < SILENT


class SeenHospitals:
    """Keeps the sightings in a file, written about once a second while there are new ones.

    Args:
        file: where they are kept; those of an earlier gateway are taken over.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._sightings = dict(read_sightings(file))
        self._changed = threading.Event()
        self._ended = threading.Event()

    def note(self, hospital: str, path: str, question: str = "") -> None:
        """Take down a request; who answers, leaves or comes anew has no question any more.

        Args:
            hospital: its name.
            path: of the request.
            question: kind of the question that it was handed; "" for none.
        """
        now, before = datetime.now(UTC), self._sightings.get(hospital)
        if question:
            self._sightings[hospital] = Sighting(now, left=False, question=question, asked=now)
        elif before is None or path in {_LEAVING, _COMING, _ANSWERING}:
            self._sightings[hospital] = Sighting(now, left=path == _LEAVING)
        else:
            self._sightings[hospital] = replace(before, last=now, left=False)
        self._changed.set()

    def keep(self) -> None:
        """Write what is new until `end`; runs in a thread of its own."""
        while not self._ended.wait(WRITE_S):
            if self._changed.is_set():
                self._changed.clear()
                self._write()
        self._write()

    def end(self) -> None:
        """Make `keep` write once more and return."""
        self._ended.set()

    def _write(self) -> None:
        content = {
            name: {
                "last": sighting.last.isoformat(),
                "left": sighting.left,
                "question": sighting.question,
                "asked": "" if sighting.asked is None else sighting.asked.isoformat(),
            }
            for name, sighting in sorted(self._sightings.copy().items())
        }
        with suppress(OSError):  # a full disk must not end the gateway
            replace_file(self._file, (json.dumps(content, indent=2) + "\n").encode(), mode=0o600)


def read_sightings(file: Path) -> Mapping[str, Sighting]:
    """Sightings by hospital; empty where none are kept."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {name: _parse(one) for name, one in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _parse(one: Mapping[str, Any]) -> Sighting:
    """A sighting of the file; an older gateway's has no question."""
    asked = one.get("asked")
    return Sighting(
        datetime.fromisoformat(one["last"]),
        one["left"],
        question=one.get("question", ""),
        asked=datetime.fromisoformat(asked) if asked else None,
    )
