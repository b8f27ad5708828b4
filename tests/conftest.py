"""What every test runs under: array shapes checked at run time, one CPU thread, no time limit per example."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Installed before any test module imports these packages: every call then checks its arguments against the annotated
# types and shapes.
install_import_hook(
    ["client", "server", "shared_model"],
    # The hook decorates methods one by one, for which beartype cannot tell which class Self is.
    "beartype.beartype(conf=beartype.BeartypeConf(hint_overrides=beartype.FrozenDict({beartype.typing.Self: object})))",
)

# A busy machine is not a failure.
settings.register_profile("hipfed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hipfed")

torch.set_num_threads(1)

COHORTS = Path(__file__).resolve().parents[1] / "../shared/data/cohorts"


@pytest.fixture(scope="session")
def eicu_demo() -> Path:
    """The real eICU cohort, where it is at hand."""
    folder = COHORTS / "eicu_demo"
    if not folder.is_dir():
        pytest.skip("needs the real cohort ../shared/data/cohorts/eicu_demo, which is not part of the project")
    return folder
