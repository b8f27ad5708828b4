"""A hospital with one class only is left out by name at its start; one whose parts have one class takes part."""

from pathlib import Path

import pandas as pd
import pytest

from shared_model.config import Scalar
from tests.server.explained_study import read_explanations
from tests.server.small_cohort import run_small_study, small_settings, write_small_cohort

SETTINGS: dict[str, Scalar] = {"strategy": "newton", "head": "", "adapt_penalty": True, "rounds_unimodal": 1}


def _cohort(folder: Path, *, died: int, but_for: int = 0) -> Path:
    """Four hospitals; in the west all patients have this outcome but the first few."""
    cohort = write_small_cohort(folder / "cohort", hospitals=4)
    table = pd.read_csv(cohort / "west" / "patients.csv")
    table["died"] = died
    table.loc[: but_for - 1, "died"] = 1 - died
    table.to_csv(cohort / "west" / "patients.csv", index=False)
    return cohort


@pytest.mark.parametrize(("died", "rule"), [(0, "no-events"), (1, "no-non-events")])
def test_hospital_with_one_outcome_is_left_out_by_name_and_the_others_finish(
    tmp_path: Path, died: int, rule: str
) -> None:
    folder = run_small_study(_cohort(tmp_path, died=died), tmp_path / "run", settings=small_settings(**SETTINGS))

    assert folder.read_json("config.json")["excluded"] == {"west": f"data check failed: {rule} (1)"}
    assert list(read_explanations(folder)["modalities"]) == ["static"]


@pytest.mark.parametrize("strategy", ["newton", "fedavg"])
@pytest.mark.parametrize("died", [0, 1])
def test_hospital_whose_parts_have_one_outcome_takes_part_to_the_end(tmp_path: Path, strategy: str, died: int) -> None:
    """One patient of sixty differs, so two of training, validation and test part hold one outcome."""
    settings = small_settings(**{**SETTINGS, "strategy": strategy, "accept_red": "west"})

    folder = run_small_study(_cohort(tmp_path, died=died, but_for=1), tmp_path / "run", settings=settings)

    assert folder.read_json("config.json")["excluded"] == {}
    metrics = folder.read_json("metrics.json")["test"]
    assert metrics["failed"] == {}
    assert metrics["sites"]["west"] == {"suppressed": True}
    assert read_explanations(folder)["failed"] == {}
