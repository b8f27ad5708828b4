from pathlib import Path

import numpy as np
import pytest

from client.site import Site
from shared_model.config import parse_settings
from simulation.compare.depth import draw_depth, gradient_norms
from tests.server.small_cohort import write_small_cohort


@pytest.fixture
def sites(tmp_path: Path) -> list[Site]:
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=1, patients=20, images=True)
    return [Site("east", cohort / "east", tmp_path / "cache")]


def test_every_convolution_of_both_networks_has_a_gradient(sites: list[Site], tmp_path: Path) -> None:
    found = gradient_norms(sites, parse_settings({}), sites[0].schema)

    assert found.groupby("network")["depth"].max().to_dict() == {"plain": 17, "residual": 17}
    assert (found["gradient_norm"] > 0).all()
    assert np.isfinite(found["relative"]).all()
    first = found[found["depth"] == 1].set_index("network")["gradient_norm"]
    assert first["plain"] != first["residual"]
    draw_depth(found).savefig(tmp_path / "depth.png")
    assert (tmp_path / "depth.png").stat().st_size > 5000


def test_study_without_images_has_no_depth(tmp_path: Path) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=1)
    site = Site("east", cohort / "east", tmp_path / "cache")
    assert gradient_norms([site], parse_settings({}), site.schema).empty
