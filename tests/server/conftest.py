"""Cohorts that several tests read and none changes."""

from pathlib import Path

import pytest

from tests.server.small_cohort import write_small_cohort


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four hospitals of 60 patients with static columns."""
    return write_small_cohort(tmp_path_factory.mktemp("static") / "cohort", hospitals=4)


@pytest.fixture(scope="session")
def image_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hospitals of 20 patients with static columns and a small image."""
    return write_small_cohort(tmp_path_factory.mktemp("images") / "cohort", patients=20, images=True)
