import pytest

from server.protocol.quorum import Attendance, require_quorum
from shared_model.errors import StudyError


def test_require_quorum_names_every_reason_when_too_few_answered() -> None:
    attendance = Attendance(
        asked=["east", "north", "south"], answered=["east"], failed={"north": "reason one", "south": "reason two"}
    )

    with pytest.raises(StudyError) as caught:
        require_quorum(attendance, min_sites=2, step="round 3 (joint)")

    assert str(caught.value).splitlines() == [
        "round 3 (joint): expected answers of at least 2 hospitals (min-sites), got 1 of 3. Failed:",
        "  north: reason one",
        "  south: reason two",
    ]


def test_require_quorum_is_content_with_exactly_min_sites() -> None:
    attendance = Attendance(asked=["east", "north"], answered=["east"], failed={"north": "late"})

    require_quorum(attendance, min_sites=1, step="statistics")
    with pytest.raises(StudyError, match="at least 2"):
        require_quorum(attendance, min_sites=2, step="statistics")
