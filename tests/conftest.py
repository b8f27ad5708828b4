"""What every test runs under: types and shapes checked at run time, one CPU thread, no time limit per example."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from tests import type_checks

type_checks.install("client", "server", "shared_model")  # before these packages are imported

if TYPE_CHECKING:
    from shared_model.patient_arrays import PatientArrays
    from shared_model.schema import Schema

settings.register_profile("hipfed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hipfed")  # a busy machine is not a failure

torch.set_num_threads(1)

# The tests of a module stay together on one worker of pytest-xdist, so that what they share is made once. Those that
# take longest begin first: three whole studies in a deployment, by the commands of the guides, are seen nowhere else.
TESTS = Path(__file__).resolve().parent
LONGEST_FIRST = (
    "end_to_end/test_deployment.py",
    "end_to_end",
    "simulation/compare",
    "simulation/notebook",
    "simulation",
    "browser",
    "server",
    "client",
    "shared_model",
)

COHORTS = Path(__file__).resolve().parents[1] / "../shared/data/cohorts"

# A study with one modality of each kind; the image is as small as a ResNet can train on.
SMALL_STUDY = """
[study]
name = "small"
title = "A small study"
outcome = "died"
patient_id = "patient_id"

[[static]]
name = "age"
kind = "numeric"
range = [0, 128]

[[static]]
name = "male"
kind = "binary"

[[static]]
name = "asa"
kind = "categorical"
levels = ["1", "2", "3"]

[series.vitals]
time_unit = "min"
step = 5
steps = 4

[[series.vitals.channels]]
name = "hr"
range = [0, 256]

[[series.vitals.channels]]
name = "spo2"
range = [0, 128]

[events.drugs]
aggregate = "dose"
items = ["opioid", "insulin"]

[images.hip]
size = 33
"""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For --dist loadgroup --no-loadscope-reorder: which tests stay on one worker, and in which order groups begin."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(item.path.relative_to(TESTS).as_posix()))
    items.sort(
        key=lambda item: [*(item.path.is_relative_to(TESTS / place) for place in LONGEST_FIRST), True].index(True)
    )


@pytest.fixture(scope="session", autouse=True)
def _signals_as_in_a_terminal() -> None:
    """Who starts the tests by nohup or in the background hands on that signals are ignored; commands are not so."""
    for number, handler in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def eicu_demo() -> Path:
    """The real eICU cohort, where it is at hand."""
    folder = COHORTS / "eicu_demo"
    if not folder.is_dir():
        pytest.skip("the real cohorts (../shared/data) are not here")
    return folder


@pytest.fixture(scope="session")
def small_study() -> Schema:
    """A study with static, series, events and images."""
    from shared_model.schema import parse_schema  # noqa: PLC0415 - the hook must come first

    return parse_schema(SMALL_STUDY, source="schema.toml")


@pytest.fixture(scope="session")
def draw_patients(small_study: Schema) -> Callable[..., PatientArrays]:
    """Random patients of the small study; each third lacks the vitals, each fourth the drugs, each second the X-ray."""
    from shared_model.patient_arrays import PatientArrays  # noqa: PLC0415 - the hook must come first

    def draw(n: int, *, seed: int = 0) -> PatientArrays:
        rng = np.random.default_rng(seed)
        row = np.arange(n)
        with_vitals, with_drugs, with_hip = row % 3 != 0, row % 4 != 1, row % 2 == 0
        vitals = rng.uniform(50, 100, (n, 4, 2))
        vitals[rng.random(vitals.shape) < 0.3] = np.nan
        vitals[:, 0, 0] = 60  # who has the series has at least one measurement
        vitals[~with_vitals] = np.nan
        age = np.where(rng.random(n) < 0.2, np.nan, rng.uniform(60, 100, n))
        return PatientArrays(
            patient_ids=tuple(f"P{seed}-{i}" for i in range(n)),
            outcome=(row % 5 == 0).astype(np.int8),
            numbers=np.stack([age, rng.integers(0, 2, n)], axis=1).astype(np.float64),
            levels=rng.integers(-1, 3, (n, 1)),
            raw={
                "vitals": vitals,
                "drugs": (rng.integers(0, 4, (n, 2)) * with_drugs[:, None]).astype(np.float32),
                "hip": (rng.integers(0, 65_536, (n, 33, 33)) * with_hip[:, None, None]).astype(np.uint16),
            },
            present={"static": np.ones(n, bool), "vitals": with_vitals, "drugs": with_drugs, "hip": with_hip},
        )

    assert small_study.modalities == ("static", "vitals", "drugs", "hip")
    return draw
