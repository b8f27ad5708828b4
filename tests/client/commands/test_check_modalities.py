from pathlib import Path

import pytest

from client.commands.check import check_hospital
from tests.server.small_cohort import STATIC_SCHEMA, write_small_cohort


@pytest.mark.parametrize(("n_events", "noted"), [(11, False), (12, True)])
def test_check_notes_more_modalities_than_a_study_explains(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    n_events: int,
    noted: bool,  # noqa: FBT001
) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=1)
    events = "".join(f'[events.e{i}]\naggregate = "any"\nitems = ["given"]\n' for i in range(n_events))
    (cohort / "schema.toml").write_text(STATIC_SCHEMA + events)

    assert check_hospital(cohort / "east", None, cache_dir=tmp_path / "cache", quality=False)

    assert ("note: 13 modalities: a study explains at most 12" in capsys.readouterr().out) == noted
