"""Real hospitals whose schema writes every range as if there were no limit."""

import json
import re
from pathlib import Path

import pytest

from client.site import Site
from client.worker.answering import Worker
from server.run_folder.folder import RunFolder
from server.study import run_study
from shared_model.config import parse_settings
from shared_model.schema import load_schema
from simulation.in_process import InProcessLink
from tests.conftest import COHORTS

SETTINGS: dict[str, str | int | float | bool] = {"explain": "none", "min-sites": 3}
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")


def _run(cohort: Path, out: Path) -> dict[str, float]:
    schema = load_schema(cohort / "schema.toml")
    workers = [Worker(Site(name, cohort / name, out / "cache" / name)) for name in HOSPITALS]
    folder = RunFolder(out / "run")
    run_study(InProcessLink(workers), schema=schema, settings=parse_settings(SETTINGS), folder=folder)
    pooled: dict[str, float] = json.loads((folder.path / "metrics.json").read_text())["test"]["pooled"]
    return pooled


@pytest.mark.skipif(not COHORTS.is_dir(), reason="the real cohorts (../shared/data) are not here")
def test_ranges_without_limit_leave_the_model_of_real_hospitals_as_it_is(tmp_path: Path) -> None:
    cohort, wide = COHORTS / "heart_disease", tmp_path / "wide"
    wide.mkdir()
    text = (cohort / "schema.toml").read_text()
    unlimited = re.sub(r"range = \[[^]]*\]", "range = [-1e9, 1e9]", text)
    assert unlimited != text
    (wide / "schema.toml").write_text(unlimited)
    for name in HOSPITALS:
        (wide / name).mkdir()
        (wide / name / "patients.csv").write_bytes((cohort / name / "patients.csv").read_bytes())
    narrow_run, wide_run = _run(cohort, tmp_path / "a"), _run(wide, tmp_path / "b")
    assert wide_run["n"] == narrow_run["n"]
    assert wide_run["auc"] == pytest.approx(narrow_run["auc"], abs=1e-3)
    assert wide_run["log_loss"] == pytest.approx(narrow_run["log_loss"], abs=1e-3)
