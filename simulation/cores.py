"""The number of cores that this process may use."""

import os
from contextlib import suppress
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container, as "QUOTA PERIOD" in microseconds, or "max PERIOD"


def count_cores(quota: Path = QUOTA) -> int:
    """Cores by the process's affinity and its container's quota; at least one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no container, or no limit
        allowed, period = map(int, quota.read_text(encoding="ascii").split())
        cores = min(cores, allowed // period)
    return max(cores, 1)
