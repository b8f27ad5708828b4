"""`hipfed-sim bench dashboard`: how soon its pages come, and whether many viewers at once get theirs."""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import psutil
from rich.console import Console

from server.dashboard.sharing import LASTS_S
from server.run_folder.lock import APP_LOCK
from server.stopping import stopped_by_signals
from shared_model.errors import StudyError
from shared_model.pages.screen_table import print_table
from shared_model.process.folder_lock import hold_lock
from simulation.bench.isolated import peak_mb
from simulation.bench.many_runs import copy_run, copy_running, make_run
from simulation.bench.viewers import Address, Crowd, Waits, fetch

TARGET_MS = 150
COMPARED = 6
LIVE = "live"
START_S = 60.0
_COMMAND = Path(sys.executable).parent / "hipfed-server"


def bench_dashboard(
    *, runs: int, rounds: int, viewers: int, seconds: float, repeats: int, patients: int, console: Console
) -> dict[str, Any]:
    """Milliseconds of each page by itself, and what viewers wait for who look on together while a run goes on.

    Args:
        runs: how many the dashboard has, one of which goes on; copies of a real one.
        rounds: of each.
        viewers: at once.
        seconds: how long they look on.
        repeats: how often each page is asked for by itself.
        patients: of the real run's cohort.
        console: where progress is shown.
    """
    names = [f"run-{number:03}" for number in range(1, runs)]
    with stopped_by_signals(console.print), tempfile.TemporaryDirectory(prefix="hipfed-bench-") as temporary:
        folder = Path(temporary)
        console.print("a run, and its copies", highlight=False)
        run, root = make_run(folder, patients=patients), folder / "runs"
        for name in names:
            copy_run(run, root / name, rounds=rounds)
        lines = copy_running(run, root / LIVE, rounds=rounds)
        result: dict[str, Any] = {"runs": runs, "rounds": rounds, "cores": os.cpu_count(), "target_ms": TARGET_MS}
        result["load_before"] = os.getloadavg()[0]
        with hold_lock(root / LIVE, APP_LOCK), dashboard_of(root) as (address, process_id, start_s):
            console.print("one viewer", highlight=False)
            result |= {
                "start_s": round(start_s, 2),
                "pages": asyncio.run(time_pages(address, process_id, names, repeats=repeats)),
            }
            result["idle_mb"] = round(peak_mb(process_id))
            console.print(f"{viewers} viewers", highlight=False)
            crowd = Crowd(address, names=names, live=LIVE)
            asyncio.run(crowd.look_on(root / LIVE, lines, viewers=viewers, seconds=seconds))
            result["peak_mb"] = round(peak_mb(process_id))
        load = {"viewers": viewers, "seconds": seconds, **summarise_waits(crowd.waits)}
        return result | {"load": load, "load_after": os.getloadavg()[0]}


@contextmanager
def dashboard_of(root: Path) -> Iterator[tuple[Address, int, float]]:
    """The command in a process of its own: where it listens, its id, and after how many seconds it did.

    Raises:
        StudyError: it does not start.
    """
    command = [str(_COMMAND), "dashboard", str(root), "--port", "0"]
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own
        try:
            said = process.stdout.readline() if process.stdout else ""
            where = urlsplit(said.partition(": ")[2].partition(" ")[0])
            if where.hostname is None or where.port is None:
                raise StudyError(f"dashboard of {root}: expected the address where it listens, got {said!r}.")
            address = Address(where.hostname, where.port)
            asyncio.run(_wait_for(address))
            yield address, process.pid, time.monotonic() - start
        finally:
            process.terminate()


async def _wait_for(address: Address) -> None:
    """Until it lets itself be connected to."""
    async with asyncio.timeout(START_S):
        while True:
            try:
                (await asyncio.open_connection(address.host, address.port))[1].close()
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
            else:
                return


async def time_pages(
    address: Address, process_id: int, names: Sequence[str], *, repeats: int
) -> dict[str, dict[str, Any]]:
    """Milliseconds of each page, one request after the other: of runs that nobody has opened yet, then again.

    Where other programs run, too, what the page cost the dashboard's processor tells more than how long it took.

    The dashboard reads the list when it starts; a run's rounds and explanation when its page is opened.

    Args:
        address: of the dashboard.
        process_id: its.
        names: of its finished runs.
        repeats: how often.
    """
    groups = [names[i : i + COMPARED] for i in range(0, len(names), COMPARED)][-repeats:]
    paths = {
        "list": ["/"],
        "run": [f"/run/{name}" for name in names[:repeats]],
        "comparison": [f"/compare?{urlencode([('run', name) for name in group])}" for group in groups],
    }
    pages = {}
    for kind, cold in paths.items():
        warm = [cold[i % len(cold)] for i in range(repeats)]
        pages[kind] = {
            "cold": await _time_each(address, process_id, cold),
            "warm": await _time_each(address, process_id, warm, pause_s=LASTS_S),
        }
    return pages


async def _time_each(
    address: Address, process_id: int, paths: Sequence[str], *, pause_s: float = 0.0
) -> dict[str, float | int]:
    seconds, cpu_s = [], _cpu_s(process_id)
    for path in paths:
        await asyncio.sleep(pause_s)  # so long that the page is made anew
        start = time.perf_counter()
        await fetch(address, path)
        seconds.append(time.perf_counter() - start)
    cpu_ms = _ms((_cpu_s(process_id) - cpu_s) / len(seconds))
    medians = {"median_ms": _ms(statistics.median(seconds)), "worst_ms": _ms(max(seconds))}
    return {"n": len(seconds), **medians, "mean_cpu_ms": cpu_ms}


def _cpu_s(process_id: int) -> float:
    times = psutil.Process(process_id).cpu_times()
    return float(times.user + times.system)


def summarise_waits(waits: Waits) -> dict[str, Any]:
    """Number, errors and percentiles in ms of each kind of wait, and the first errors."""
    rows = {}
    for kind in sorted({*waits.seconds, *waits.n_errors}):
        seconds, n_errors = waits.seconds.get(kind, []), waits.n_errors.get(kind, 0)
        percentiles = {f"p{q}_ms": _ms(float(np.percentile(seconds, q))) if seconds else None for q in (50, 95, 99)}
        rows[kind] = {"n": len(seconds) + n_errors, "errors": n_errors, **percentiles}
    return {"waits": rows, "errors": sum(waits.n_errors.values()), "first_errors": waits.told}


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)


def print_dashboard(result: dict[str, Any], console: Console) -> None:
    """The figures for people."""
    pages = [
        (f"{kind}, {visit}", *map(str, row.values()))
        for kind, page in result["pages"].items()
        for visit, row in page.items()
    ]
    print_table(console, ("page, ms", "n", "median", "worst", "CPU"), pages)
    load = result["load"]
    waits = [(kind, *map(str, row.values())) for kind, row in load["waits"].items()]
    heading = f"{load['viewers']} viewers, {load['seconds']:g} s; ms"
    print_table(console, (heading, "n", "errors", "p50", "p95", "p99"), waits)
    console.print(
        f"started in {result['start_s']} s; peak memory {result['idle_mb']} MB with one viewer, {result['peak_mb']} MB "
        f"with all; {load['errors']} errors",
        highlight=False,
    )
    for error in load["first_errors"]:
        console.print(error, markup=False, highlight=False)
