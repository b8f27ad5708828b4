import os
from pathlib import Path

import pytest

from client.cohort_folder import list_hospitals
from simulation.decoded import decoded_beside


@pytest.fixture
def cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("HIPFED_CACHE", raising=False)
    (tmp_path / "cohort" / "east").mkdir(parents=True)
    return tmp_path / "cohort"


def test_decoded_patients_of_a_simulation_lie_in_the_cohort(cohort: Path, tmp_path: Path) -> None:
    with decoded_beside(cohort, tmp_path / "run") as folder:
        folder.mkdir()
        assert folder.parent == cohort
        assert os.environ["HIPFED_CACHE"] == str(folder)  # for the processes that it starts
        assert [path.name for path in list_hospitals(cohort)] == ["east"]
    assert "HIPFED_CACHE" not in os.environ


def test_decoded_patients_lie_beside_the_run_where_the_cohort_is_closed(cohort: Path, tmp_path: Path) -> None:
    cohort.chmod(0o555)

    with decoded_beside(cohort, tmp_path / "runs" / "one") as folder:
        assert folder.parent == tmp_path / "runs"
    cohort.chmod(0o755)


def test_decoded_patients_lie_where_the_user_says(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIPFED_CACHE", str(tmp_path / "chosen"))

    with decoded_beside(cohort, tmp_path / "run") as folder:
        assert folder == tmp_path / "chosen"
    assert os.environ["HIPFED_CACHE"] == str(tmp_path / "chosen")
