import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from client.doctor import machine
from client.doctor.machine import check_disk, check_gpu, check_packages, check_python

Usage = namedtuple("Usage", "total used free")


def test_this_environment_is_fine() -> None:
    assert check_python().grade == "fine"
    assert check_packages().grade == "fine"


def test_missing_and_wrong_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["no-such-package-at-all>=1", "numpy<1", 'captum>=99; extra == "bench"']
    monkeypatch.setattr(machine, "requires", lambda _: wanted)
    found = check_packages()
    assert found.grade == "fault"
    assert "no-such-package-at-all is missing" in found.detail
    assert "numpy is " in found.detail
    assert "captum" not in found.detail


def test_old_python_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "OLDEST_PYTHON", (9, 0))
    assert check_python().grade == "fault"


@pytest.mark.parametrize(("free_gib", "grade"), [(0.5, "fault"), (5, "warning"), (50, "fine")])
def test_room_on_the_disk_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gib: float, grade: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, free_gib * 2**30))
    assert check_disk(tmp_path / "not" / "yet", "cache").grade == grade


def test_driver_that_torch_cannot_use_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine, "_NVIDIA", tmp_path / "none")
    assert check_gpu().grade == "warning"

    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 2021\nGCC version\n")
    monkeypatch.setattr(machine, "_NVIDIA", version)
    found = check_gpu()
    assert found.grade == "fault"
    assert "470.57.02" in found.detail
