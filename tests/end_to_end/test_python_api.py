"""The lines of simulation/README.md's section on Python, run as they stand there."""

import re
from pathlib import Path
from typing import Any

import pytest

from shared_model.errors import SettingsError
from simulation.api import open_results, run
from simulation.cohort import write_cohort

GUIDE = Path(__file__).parents[2] / "simulation" / "README.md"


def test_lines_of_the_guide_run_a_study_and_use_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, text = GUIDE.read_text(encoding="utf-8").partition("## From Python\n")
    block = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert block is not None
    write_cohort(tmp_path / "cohort", hospitals=3, patients=600, image_size=33, seed=0)
    write_cohort(tmp_path / "elsewhere", hospitals=2, patients=200, image_size=33, seed=9)
    monkeypatch.chdir(tmp_path)
    shown: list[Any] = []

    names: dict[str, Any] = {}
    for line in block[1].splitlines():
        statement = line.partition("  #")[0]
        if statement.startswith(("from ", "results = ")):
            exec(statement, names)  # noqa: S102 - the guide's own
        elif statement:
            shown.append(eval(statement, names))  # noqa: S307

    metrics, shares, risks, interval = shown
    assert metrics["n"] > 0
    assert 0 < metrics["auc"] < 1
    assert not shares.empty
    assert set(risks.columns) >= {"patient_id", "risk", "has_static"}
    assert set(risks["part_of_run"]) == {"train", "val", "test"}
    assert risks["risk"].between(0, 1).all()
    assert interval[0] < interval[1]
    assert open_results("runs/first").content.state == "completed"
    with pytest.raises(SettingsError, match=r"round-fusion: unknown setting\. Did you mean rounds-fusion\?"):
        run("cohort", "runs/second", round_fusion=3)
