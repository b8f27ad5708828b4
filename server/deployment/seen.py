"""When the gateway last heard from each hospital: what `status` and a waiting run know of who is connected.

A SuperNode asks for messages every 3 s, and says every 30 s that it lives while it works on one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from shared_model.files import replace_file

SILENT = timedelta(seconds=45)
WRITE_S = 1.0
_LEAVING = "/v1/fleet/deactivate-node"


@dataclass(frozen=True)
class Sighting:
    """When a hospital was last heard, UTC, and whether it said goodbye then."""

    last: datetime
    left: bool

    def is_connected(self, now: datetime) -> bool:
        """Whether it is there, as far as can be told."""
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

    def note(self, hospital: str, path: str) -> None:
        """Take down a request."""
        self._sightings[hospital] = Sighting(datetime.now(UTC), left=path == _LEAVING)
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
            name: {"last": sighting.last.isoformat(), "left": sighting.left}
            for name, sighting in sorted(self._sightings.copy().items())
        }
        with suppress(OSError):  # a full disk must not end the gateway
            replace_file(self._file, (json.dumps(content, indent=2) + "\n").encode(), mode=0o600)


def read_sightings(file: Path) -> Mapping[str, Sighting]:
    """Sightings by hospital; empty where none are kept."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {name: Sighting(datetime.fromisoformat(one["last"]), one["left"]) for name, one in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
