"""A study over Flower's simulation engine, in a SuperLink of its own.

Each run has its own FLWR_HOME and port: a SuperLink that another checkout started would run that checkout's code. The
SuperLink and everything it starts end with the run.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from server.flower.submission import (
    POLL_S,
    FlowerFolders,
    check_outcome,
    end_process,
    flower_environment,
    follow,
    require_checkout,
    submission,
    tolerant,
    write_connection,
)
from server.run_folder.folder import CONTINUE, RunFolder
from server.run_folder.lock import LAUNCHER_LOCK
from server.stopping import stopped_by_signals, telling_its_end
from shared_model.config import Scalar
from shared_model.errors import SettingsError, StudyError
from shared_model.process.ports import free_ports, is_listening
from simulation.cores import count_cores
from simulation.flower.guardian import guarded

START_TIMEOUT_S = 60.0
RAY_START_S = 30  # fixed in Ray 2.55 (ray/_private/node.py)
_RAY_TIMED_OUT = b"The current node timed out during startup"

# Ray, on which Flower simulates, makes sockets there; a longer path is no address of a socket (sun_path).
_RAY_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
LONGEST_TEMPORARY_FOLDER = (107 if sys.platform == "linux" else 103) - len(_RAY_SOCKET)


def require_ray() -> None:
    """Say before anything starts that Ray is missing: Flower would only say that its simulation failed.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    if find_spec("ray") is None:
        raise ModuleNotFoundError("No module named 'ray'", name="ray")


def check_temporary_folder(environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a temporary folder in which Ray cannot start: Flower would only say that its simulation failed.

    Raises:
        SettingsError: its path is too long.
    """
    # Elsewhere than on Linux Ray takes /tmp, whatever TMPDIR says.
    name = "TMPDIR" if sys.platform == "linux" and "RAY_TMPDIR" not in environment else "RAY_TMPDIR"
    n_bytes = len(os.fsencode(environment.get(name, "")))
    if n_bytes > LONGEST_TEMPORARY_FOLDER:
        raise SettingsError(
            f"{name}: expected a path of at most {LONGEST_TEMPORARY_FOLDER} bytes, as Flower's simulation makes "
            f"sockets there, got {n_bytes}: {environment[name]}. Set RAY_TMPDIR=/tmp, for example."
        )


def run_on_flower(
    *,
    folder: RunFolder,
    run_config: Mapping[str, Scalar],
    n_sites: int,
    watch: Callable[[], None],
    say: Callable[[str], None],
) -> None:
    """Run the app and wait for its end.

    Args:
        folder: the run folder, which the app writes; Flower's own log goes to flower.log there.
        run_config: all keys of Flower's run config.
        n_sites: hospitals, one virtual SuperNode each.
        watch: called a few times a second while the run goes on; should it fail, the run goes on unwatched.
        say: shows the user a line.

    Raises:
        StudyError: the run did not end well; the reason is the one of status.json.
    """
    require_checkout()
    run_file = folder.path / "flower.log"
    # Outermost: there, all that was started has ended, and nobody else writes the status.
    with telling_its_end(folder), stopped_by_signals(say, also=(signal.SIGHUP,)), run_file.open("ab") as log:
        folder.write_status("running")
        state, is_busy = _attempt(folder, run_config, n_sites, log=log, watch=tolerant(watch, say))
        if is_busy:
            say(f"Ray did not start within its {RAY_START_S} s, as the machine is busy; trying once more")
            state, is_busy = _attempt(folder, run_config, n_sites, log=log, watch=tolerant(watch, say))
    if is_busy:
        folder.write_status("failed", reason := explain_busy())
        raise StudyError(reason)
    check_outcome(folder, flower_state=state, see=str(run_file))


def _attempt(
    folder: RunFolder, run_config: Mapping[str, Scalar], n_sites: int, *, log: IO[bytes], watch: Callable[[], None]
) -> tuple[str, bool]:
    """One run with a SuperLink of its own: Flower's word on it, and whether Ray had too little time to start."""
    begin = log.seek(0, os.SEEK_END)
    with (
        tempfile.TemporaryDirectory(prefix="hipfed-") as home,
        guarded(home=Path(home), run=folder.path, log=log, lock=LAUNCHER_LOCK, go_on=CONTINUE) as guard,
    ):
        place = FlowerFolders(Path(home), flower_environment(Path(home)), log, guard)
        with _superlink(place) as address:
            write_connection(place.home, address)
            options = ("--federation-config", _describe_federation(n_sites))
            submit = submission(place.home, run_config, *options, staging=place.home)
            state = follow(submit, place, watch)
    told = (folder.path / "flower.log").read_bytes()[begin:]
    return state, state != "finished:completed" and _RAY_TIMED_OUT in told


def explain_busy() -> str:
    """That Ray, on which Flower simulates, could not start, with what this machine does meanwhile."""
    return (
        f"Ray, on which Flower simulates: expected it to start within its {RAY_START_S} s, got nothing twice: the "
        f"machine is too busy ({os.getloadavg()[0]:.0f} processes want its {count_cores()} cores). Run fewer things at "
        f"once, then {CONTINUE}."
    )


def _describe_federation(n_sites: int) -> str:
    """No more processes than hospitals, nor than cores: each takes seconds and 0.6 GB before it answers anything."""
    return (
        f"num-supernodes={n_sites} init-args-num-cpus={min(n_sites, count_cores())} "
        f"client-resources-num-cpus=1 client-resources-num-gpus={_gpu_share(n_sites)}"
    )


@contextmanager
def _superlink(place: FlowerFolders) -> Iterator[str]:
    """A local SuperLink in simulation mode; yields its address, and ends it and all it started."""
    port, control_port = free_ports(2)
    command = [
        *(sys.executable, "-P", "-m", "server.flower.superlink"),
        "--insecure",
        "--simulation",
        "--isolation",
        "subprocess",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--control-api-address",
        f"127.0.0.1:{control_port}",
        "--database",
        str(place.home / "state.db"),
    ]
    process = place.start(command)
    try:
        _wait_for_port(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        end_process(process)


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise StudyError(f"flower-superlink: expected it to start, got exit status {process.returncode}.")
        if is_listening(port):
            return
        time.sleep(POLL_S)
    raise StudyError(f"flower-superlink: expected it to listen within {START_TIMEOUT_S:g} s, got nothing.")


def _gpu_share(n_sites: int) -> float:
    """Fraction of a GPU that each virtual hospital reserves: they share the one there is, or none."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:  # no driver: torch, which takes seconds to load, need not be asked
        return 0.0
    import torch  # noqa: PLC0415

    return round(1.0 / n_sites, 4) if torch.cuda.is_available() else 0.0
