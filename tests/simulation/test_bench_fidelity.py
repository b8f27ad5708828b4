"""The fidelity benchmark: its parts by hand, and the whole on cohorts as small as they can be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from shared_model.shapley.shares import Shares, share_of_means
from simulation.bench import share_sampling
from simulation.bench.share_sampling import bootstrap_difference, interval_coverage
from simulation.bench.shortcut import _box_sums
from simulation.cli import app


def _phi(n: int, *, seed: int = 0) -> np.ndarray:
    """Five modalities of very unequal size, one of them the same for nearly all."""
    rng = np.random.default_rng(seed)
    return rng.gamma([4.0, 1.0, 0.5, 2.0, 20.0], [0.3, 0.2, 0.2, 0.05, 0.01], size=(n, 5))


def test_intervals_of_shares_hold_the_population_as_often_as_they_say() -> None:
    found = interval_coverage(_phi(2000), seed=1)

    assert all(0.92 <= coverage <= 0.98 for coverage in found["coverage"])


def test_intervals_that_are_too_narrow_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def overconfident(n: float, size: np.ndarray, outer: np.ndarray) -> Shares:
        found = share_of_means(n, size, outer)
        return Shares(found.share, found.variance / 4)

    monkeypatch.setattr(share_sampling, "share_of_means", overconfident)

    found = interval_coverage(_phi(2000), seed=1)

    assert max(found["coverage"]) < 0.85


def test_intervals_are_those_of_a_bootstrap_to_a_tenth_of_a_point() -> None:
    assert bootstrap_difference(_phi(1600), seed=1)["largest_difference_points"] < 0.1


def test_boxes_are_summed_at_every_place() -> None:
    sums = _box_sums(np.arange(9.0).reshape(3, 3), height=2, width=2)

    assert sums.tolist() == [[8.0, 12.0], [20.0, 24.0]]


def test_whole_benchmark_writes_every_part(tmp_path: Path) -> None:
    small = ["--patients", "360", "--image-size", "33"]
    settings = {
        "folds": 3,
        "rounds-unimodal": 1,
        "rounds-fusion": 3,
        "rounds-joint": 0,
        "image-embedding": 2,
        "background-rows": 30,
        "explain": "modalities",
        "share-refits": 2,  # 100 of three small runs take a minute
    }
    chosen = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]

    found = CliRunner().invoke(app, ["bench", "fidelity", "--out", str(tmp_path / "out.json"), *small, *chosen])

    assert found.exit_code == 0, found.output
    content: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
    assert set(content) >= {
        "shares",
        "background",
        "shortcut",
        "scanner_shift",
        "randomised_weights",
        "deletion",
        "coverage",
    }
    deletion = content["deletion"]
    assert deletion["deletion"] < deletion["deletion_random"]
    assert deletion["insertion"] < deletion["insertion_random"]
