"""The machine: Python and packages, GPU and driver, room on the disk."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from client.doctor.finding import CheckResult

OLDEST_PYTHON = (3, 11)
LEAST_FREE_BYTES, FEW_FREE_BYTES = 2 * 2**30, 10 * 2**30
_NVIDIA = Path("/proc/driver/nvidia/version")


def check_python() -> CheckResult:
    """Check that this Python is one that hipfed runs on."""
    found, oldest = platform.python_version(), ".".join(map(str, OLDEST_PYTHON))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return CheckResult("Python", "fault", f"{found}, older than {oldest}", f"Install Python {oldest} or newer.")
    return CheckResult("Python", "fine", found)


def check_packages() -> CheckResult:
    """Check that the packages that hipfed names are there in versions that it names."""
    wrong = sorted(_wrong_packages())
    if wrong:
        remedy = "Install hipfed again in this environment: pip install --editable CHECKOUT."
        return CheckResult("packages", "fault", "; ".join(wrong), remedy)
    return CheckResult(
        "packages", "fine", f"hipfed {version('hipfed')}, flwr {version('flwr')}, torch {version('torch')}"
    )


def _wrong_packages() -> Iterator[str]:
    for text in requires("hipfed") or []:
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            yield f"{wanted.name} is missing"
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            yield f"{wanted.name} is {found}, not {wanted.specifier}"


def check_gpu() -> CheckResult:
    """Check that torch can use the GPU that the machine has."""
    import torch  # noqa: PLC0415 - seconds, which the other checks need not wait for

    if torch.cuda.is_available():
        name, memory = torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).total_memory / 2**30
        return CheckResult("GPU", "fine", f"{name}, {memory:.0f} GiB, CUDA {torch.version.cuda}")
    driver = _read_driver(_NVIDIA)
    if driver:
        return CheckResult(
            "GPU",
            "fault",
            f"driver {driver} is loaded, but torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use it",
            "Update the driver to one for that CUDA version, or install the torch that fits the driver; a study with "
            "device=cuda would refuse to start.",
        )
    return CheckResult(
        "GPU", "warning", "none: training runs on the CPU", "Fine for small images; slow for a ResNet-50."
    )


def _read_driver(path: Path) -> str:
    """Version of the NVIDIA kernel module; empty where none is loaded."""
    try:
        words = path.read_text(encoding="utf-8").splitlines()[0].split()
    except (OSError, IndexError):
        return ""
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")


def check_disk(folder: Path, subject: str) -> CheckResult:
    """Check that there is room where the hospital writes.

    Args:
        folder: it need not exist yet.
        subject: what the folder is for.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    room = f"{free / 2**30:.1f} GiB free at {folder}"
    if not os.access(existing, os.W_OK):
        return CheckResult(
            subject, "fault", f"{existing} cannot be written", "Mend its permissions, or choose another."
        )
    if free < LEAST_FREE_BYTES:
        remedy = f"Make room, at least {LEAST_FREE_BYTES // 2**30} GiB, or choose another folder in hospital.toml."
        return CheckResult(subject, "fault", room, remedy)
    if free < FEW_FREE_BYTES:
        return CheckResult(
            subject, "warning", room, "Decoded images and weights of a large study may not fit. Make room."
        )
    return CheckResult(subject, "fine", room)
