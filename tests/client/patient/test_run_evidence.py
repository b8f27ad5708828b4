"""What a run folder and the hospital's own check say of predictions at a hospital."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.patient.run_evidence import gather_evidence
from shared_model.errors import StudyError
from tests.client.finished_run import FinishedRun, finish_run

FINDING = {"check": "short-cut", "modality": "hip", "item": "a", "value": 0.9, "limit": 0.85, "grade": "red"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return finish_run(tmp_path_factory.mktemp("finished"), **{"accept-red": "south"})


@pytest.fixture
def copied(finished: FinishedRun, tmp_path: Path) -> FinishedRun:
    """The same run in a folder of its own, to be changed."""
    shutil.copytree(finished.run, tmp_path / "run")
    return FinishedRun(tmp_path / "run", finished.cohort, finished.cache)


def _gather(finished: FinishedRun) -> dict[str, Any]:
    return gather_evidence(finished.model(), finished.site())


def _write_quality(finished: FinishedRun, **hospitals: dict[str, Any]) -> None:
    (finished.run / "quality.json").write_text(json.dumps({"hospitals": hospitals, "failed": {}}))


def test_evidence_holds_the_pooled_test_of_the_run(finished: FinishedRun) -> None:
    pooled = json.loads((finished.run / "metrics.json").read_text())["test"]["pooled"]

    test = _gather(finished)["test"]

    assert test["auc"] == pooled["auc"]
    assert test["auc_ci"] == pooled["auc_ci"]
    assert test["events"] == pooled["events"]


@pytest.mark.parametrize("content", [None, {"test": {"pooled": {"suppressed": True}}}])
def test_test_that_is_not_there_or_suppressed_is_unknown(copied: FinishedRun, content: dict[str, Any] | None) -> None:
    (copied.run / "metrics.json").unlink()
    if content is not None:
        (copied.run / "metrics.json").write_text(json.dumps(content))

    assert set(_gather(copied)["test"].values()) == {None}


def test_findings_of_one_check_are_one_entry_with_the_worst_value(copied: FinishedRun) -> None:
    findings = [FINDING, FINDING | {"item": "b", "value": 0.95}]
    _write_quality(copied, south={"grade": "red", "refused": False, "findings": findings})

    found = [one for one in _gather(copied)["findings"] if one["hospital"] == "south"]

    assert found == [
        {
            "hospital": "south",
            "check": "short-cut",
            "modality": "hip",
            "grade": "red",
            "items": ["a", "b"],
            "value": 0.95,
            "accepted": True,
        }
    ]


def test_finding_of_a_hospital_that_was_refused_is_not_what_the_model_learned_from(copied: FinishedRun) -> None:
    _write_quality(copied, south={"grade": "red", "refused": True, "findings": [FINDING]})

    assert {one["hospital"] for one in _gather(copied)["findings"]} <= {"east"}


def test_own_finding_counts_where_the_run_suppressed_the_hospital(tmp_path: Path) -> None:
    """Every hip film of a patient who died carries a marker: the hospital's own check sees it."""

    def plant(cohort: Path) -> None:
        lines = [line.split(",") for line in (cohort / "east" / "patients.csv").read_text().splitlines()]
        outcome = lines[0].index("died")
        died = {line[0] for line in lines[1:] if line[outcome] == "1"}
        for file in (cohort / "east" / "hip").glob("*.png"):
            pixels = np.asarray(Image.open(file)).copy()
            pixels[:6, :6] = 255 if file.stem in died else 0
            Image.fromarray(pixels).save(file)

    finished = finish_run(tmp_path, plant, **{"accept-red": "east"})
    _write_quality(finished, east={"suppressed": True})

    evidence = _gather(finished)

    assert ("short-cut", "hip", "east") in {
        (one["check"], one["modality"], one["hospital"]) for one in evidence["findings"]
    }


def test_hospital_that_the_run_does_not_name_is_told(copied: FinishedRun) -> None:
    _write_quality(copied, south={"grade": "green", "refused": False, "findings": []})

    assert not _gather(copied)["is_judged"]
    assert _gather(copied)["site"] == "east"


def test_kind_of_data_without_a_share_is_unused_and_one_without_evidence_unproven(copied: FinishedRun) -> None:
    path = copied.run / "explanations.json"
    content = json.loads(path.read_text())
    content["modalities"] = {
        "static": {"share": 1.0, "evidence": True},
        "hip": {"share": 0.0002},
        "vitals": {"share": 0.1, "evidence": False},
    }
    path.write_text(json.dumps(content))

    evidence = _gather(copied)

    assert evidence["unused"] == ["hip"]
    assert evidence["unproven"] == ["vitals"]


def test_encoder_with_random_fixed_weights_is_called_untrained(finished: FinishedRun) -> None:
    evidence = _gather(finished)

    assert evidence["untrained"] == ["hip"]
    assert "random weights, never trained" in evidence["encoder"]


def test_damaged_file_of_the_run_is_refused(copied: FinishedRun) -> None:
    (copied.run / "metrics.json").write_text("{")
    run, site = copied.model(), copied.site()

    with pytest.raises(StudyError, match=r"metrics\.json: expected a JSON file of a run"):
        gather_evidence(run, site)
