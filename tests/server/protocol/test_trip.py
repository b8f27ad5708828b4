"""The trip of a training question is as long as shared_model/README.md lists it."""

import re
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.server.small_cohort import run_small_study, small_settings

ROOT = Path(__file__).parents[3]
PACKAGES = ("client", "server", "shared_model", "simulation")


def test_training_question_passes_the_functions_that_the_readme_lists(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks: list[traceback.StackSummary] = []
    backward: Any = torch.Tensor.backward

    def record(self: torch.Tensor, *arguments: Any, **named: Any) -> None:
        stacks.append(traceback.extract_stack())
        backward(self, *arguments, **named)

    monkeypatch.setattr(torch.Tensor, "backward", record)

    run_small_study(cohort, tmp_path / "run", settings=small_settings(rounds_fusion=1))

    own = {str(ROOT / package) for package in PACKAGES}
    trip = [frame.name for frame in stacks[0] if any(frame.filename.startswith(f"{folder}/") for folder in own)]
    text = (ROOT / "shared_model" / "README.md").read_text(encoding="utf-8").partition("## The trip of a training")[2]
    assert trip == re.findall(r"^\d+\. `(\w+)`", text, re.MULTILINE)
    assert len(trip) <= 10
