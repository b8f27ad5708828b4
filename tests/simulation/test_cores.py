import os
from pathlib import Path

import pytest

from simulation.cores import count_cores

HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("100000 100000", 1), ("50000 100000", 1), ("max 100000", HERE), ("9900000 100000", min(HERE, 99)), ("", HERE)],
)
def test_cores_are_those_of_the_machine_within_the_containers_quota(quota: str, cores: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(quota)

    assert count_cores(tmp_path / "cpu.max") == cores


def test_cores_are_the_machines_where_no_quota_is_told(tmp_path: Path) -> None:
    assert count_cores(tmp_path / "cpu.max") == HERE
