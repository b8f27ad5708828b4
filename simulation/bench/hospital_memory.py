"""Memory of a hospital's processes while it answers: what each holds for itself, and what all hold together.

Couriers are copies of the launcher: most of their memory is the launcher's, and counting what they can see (resident
memory) would count it again for each. So a process is told by its private pages (USS), a hospital by all its processes'
pages, shared ones in equal parts (PSS).
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from client.flower.supernode import COURIER, LAUNCHER
from shared_model.errors import StudyError
from shared_model.process import supervision

EVERY_S = 1.0
_MB = 1e6
_NAMES = {COURIER: "courier", LAUNCHER: "launcher"}


@contextmanager
def watched_memory(folders: Sequence[Path]) -> Iterator[dict[str, int]]:
    """Yield peaks that are filled in when the block ends.

    Args:
        folders: of the hospitals' supervisors; their parts run already.

    Raises:
        StudyError: no courier was seen, so nothing is known of what a message takes.
    """
    peaks: dict[str, float] = {}
    ended, found = threading.Event(), dict[str, int]()
    watch = threading.Thread(target=_watch, args=(folders, peaks, ended), daemon=True)
    watch.start()
    try:
        yield found
    finally:
        ended.set()
        watch.join()
    if _NAMES[COURIER] not in peaks:
        raise StudyError(
            f"memory: expected a courier at work, got none in looks every {EVERY_S:g} s. Give more --questions."
        )
    found |= {name: round(peak) for name, peak in sorted(peaks.items())}


def _watch(folders: Sequence[Path], peaks: dict[str, float], ended: threading.Event) -> None:
    while not ended.wait(EVERY_S):
        for folder in folders:
            keep_peaks(peaks, read_memory(list_processes(folder)))


def list_processes(folder: Path) -> list[tuple[str, psutil.Process]]:
    """What a hospital's supervisor has started, by the name of the part or of the process that it is."""
    status = supervision.read_status(folder)
    found: list[tuple[str, psutil.Process]] = []
    for part in status.parts if status is not None else ():
        try:
            top = psutil.Process(part.pid) if part.pid is not None else None
            below = top.children(recursive=True) if top is not None else []
            found += [(part.name, top)] if top is not None else []
            found += [(_NAMES.get(process.name(), part.name), process) for process in below]
        except psutil.NoSuchProcess:  # it ended meanwhile, as couriers do all the time
            continue
    return found


def read_memory(processes: Sequence[tuple[str, psutil.Process]]) -> dict[str, float]:
    """MB by name: the private pages of the largest of this name, and as "hospital" the pages of all."""
    held: dict[str, float] = {}
    total = 0.0
    for name, process in processes:
        try:
            memory = process.memory_full_info()
        except psutil.Error:
            continue
        held[name] = max(held.get(name, 0.0), memory.uss / _MB)
        total += memory.pss / _MB
    return held | {"hospital": total}


def keep_peaks(peaks: dict[str, float], seen: Mapping[str, float]) -> None:
    """Take over what is more than before."""
    for name, amount in seen.items():
        peaks[name] = max(peaks.get(name, 0.0), amount)
