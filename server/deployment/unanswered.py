"""Words about hospitals that let a question wait, for who looks at a run."""

from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path

from server.deployment.seen import read_sightings
from shared_model.process.supervision import describe_unanswered

FIRST_WORD = timedelta(minutes=1)


class UnansweredQuestions:
    """Says which question a hospital has not answered: after a minute, then each time after twice as long.

    Args:
        seen: file of the sightings.
        hospitals: names of those of the run.
        say: shows a line.
    """

    def __init__(self, seen: Path, *, hospitals: Collection[str], say: Callable[[str], object]) -> None:
        self._seen, self._hospitals, self._say = seen, frozenset(hospitals), say
        self._due: dict[tuple[str, datetime], timedelta] = {}

    def look(self, now: datetime | None = None) -> None:
        """Say what there is to be said; called as often as one likes.

        Args:
            now: this moment, if not the present.
        """
        now = now or datetime.now(UTC)
        for name, sighting in read_sightings(self._seen).items():
            if sighting.asked is None or sighting.left or name not in self._hospitals:
                continue
            due = self._due.get((name, sighting.asked), FIRST_WORD)
            if now - sighting.asked >= due:
                self._due[name, sighting.asked] = 2 * due
                self._say(f"{name}: {describe_unanswered(sighting.question, sighting.asked, now)}")
