"""A study over Flower's simulation engine, in a SuperLink of its own.

Each run has its own FLWR_HOME and port: a SuperLink that another checkout started would run that checkout's code. The
SuperLink and everything it starts end with the run. `flwr run --stream` exits with 0 even when the app failed, so the
outcome is what `flwr ls` says.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
import torch

from server.run_folder import RunFolder, read_status
from shared_model.config import Scalar
from shared_model.errors import StudyError
from shared_model.guardian import STOP_TIMEOUT_S, end_tree
from simulation.guardian import guarded

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 60.0
POLL_S = 0.3
INTERRUPTED = "interrupted; continue with --resume"
_CONNECTION = "hipfed"
_CACHE = "HIPFED_CACHE"
_UNREADABLE = "unknown"

_ENVIRONMENT = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


@dataclass(frozen=True)
class _Place:
    """Where Flower's processes of one run work.

    Attributes:
        home: FLWR_HOME and working directory of all of them: in the user's, a folder of a name that is also an
            argument, or of a module, would be taken for it.
        environment: theirs.
        log: takes their output.
        guard: told the id of each that is started.
    """

    home: Path
    environment: Mapping[str, str]
    log: IO[bytes]
    guard: Callable[[int], None]

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own, which a Ctrl-C in the terminal does not reach."""
        process = subprocess.Popen(  # noqa: S603 - Flower's own commands
            command, env=self.environment, cwd=self.home, stdout=self.log, stderr=self.log, start_new_session=True
        )
        self.guard(process.pid)
        return process


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
    if not (ROOT / "pyproject.toml").exists():
        raise StudyError(
            f"hipfed at {ROOT}: expected its checkout with pyproject.toml, got an installed copy. "
            "Install with `pip install --editable CHECKOUT`."
        )
    folder.write_status("running")
    try:
        with (
            _stopped_by_signals(say),
            tempfile.TemporaryDirectory(prefix="hipfed-") as home,
            (folder.path / "flower.log").open("ab") as log,
            guarded(home=Path(home), run=folder.path, log=log) as guard,
        ):
            place = _Place(Path(home), _environment(Path(home)), log, guard)
            with _superlink(place) as address:
                submit = _submission(place, address, run_config=run_config, n_sites=n_sites)
                state = _follow(submit, place, _tolerant(watch, say))
    except BaseException as error:  # here, all that was started has ended: nobody else writes the status
        _tell_interruption(folder, error)
        raise
    _check_outcome(folder, flower_state=state)


def _environment(home: Path) -> dict[str, str]:
    environment = {**os.environ, **_ENVIRONMENT, "FLWR_HOME": str(home)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    if environment.get(_CACHE):
        environment[_CACHE] = str(Path(environment[_CACHE]).absolute())
    return environment


def _submission(place: _Place, address: str, *, run_config: Mapping[str, Scalar], n_sites: int) -> list[str]:
    """The command that submits the run; the files that it needs are written."""
    (place.home / "config.toml").write_text(
        f'[superlink]\ndefault = "{_CONNECTION}"\n\n'
        f'[superlink.{_CONNECTION}]\naddress = "{address}"\ninsecure = true\n',
        encoding="utf-8",
    )
    config_file = place.home / "run.toml"
    config_file.write_text(_toml(run_config), encoding="utf-8")
    return [
        "flwr",
        "run",
        str(ROOT),
        _CONNECTION,
        "--stream",
        "--run-config",
        str(config_file),
        "--federation-config",
        f"num-supernodes={n_sites} client-resources-num-cpus=1 client-resources-num-gpus={_gpu_share(n_sites)}",
    ]


def _check_outcome(folder: RunFolder, *, flower_state: str) -> None:
    state, reason = read_status(folder.path)
    # The app's last act is to write "completed": where Flower's word cannot be read, that is enough.
    if state == "completed" and (flower_state == "finished:completed" or flower_state.startswith(_UNREADABLE)):
        return
    if state != "failed":
        reason = f"the app ended without a result (Flower says {flower_state}); see {folder.path / 'flower.log'}"
        folder.write_status("failed", reason)
    raise StudyError(reason)


def _tell_interruption(folder: RunFolder, error: BaseException) -> None:
    """Say why the launcher gave up, unless the app finished meanwhile."""
    if read_status(folder.path)[0] == "completed":
        return
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        reason = INTERRUPTED
    else:
        reason = str(error) if isinstance(error, StudyError) else f"{type(error).__name__}: {error}"
    folder.write_status("failed", reason)


def _follow(submit: Sequence[str], place: _Place, watch: Callable[[], None]) -> str:
    """Submit, wait for the end of the log stream, and return Flower's word on the run."""
    log = Path(place.log.name)
    start = log.stat().st_size
    process = place.start(submit)
    try:
        while process.poll() is None:
            watch()
            time.sleep(POLL_S)
    finally:
        _end(process)
    watch()
    text = log.read_bytes()[start:].decode(errors="replace")
    started = re.search(r"Successfully started run (\d+)", text)
    if started is None:
        return f"not started: {text.strip()[-500:]}"
    listing = ["flwr", "ls", _CONNECTION, "--run-id", started.group(1), "--format", "json"]
    end = time.monotonic() + STOP_TIMEOUT_S
    while True:
        done = subprocess.run(listing, env=place.environment, cwd=place.home, capture_output=True, check=False)  # noqa: S603
        status = _listed_status(done.stdout)
        if status.startswith("finished"):
            return status
        if time.monotonic() > end:
            said = (done.stderr or done.stdout).decode(errors="replace").strip()
            return f"{status}: {said[-500:]}" if status == _UNREADABLE else status
        time.sleep(POLL_S)


def _tolerant(watch: Callable[[], None], say: Callable[[str], None]) -> Callable[[], None]:
    """Watching that fails is told once and ends: what is shown must not decide how a run ends."""
    failed = False

    def attempt() -> None:
        nonlocal failed
        if failed:
            return
        try:
            watch()
        except Exception as error:  # noqa: BLE001 - whatever it is, the run goes on
            failed = True
            say(f"progress can no longer be shown ({type(error).__name__}: {error}); the run goes on")

    return attempt


@contextmanager
def _stopped_by_signals(say: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run alike, at once on the screen; a second one does not break off the ending."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopping = False

    def stop(number: int, _frame: object) -> None:
        nonlocal stopping
        say("still stopping…" if stopping else "stopping…")
        if not stopping:
            stopping = True
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listed_status(listing: bytes) -> str:
    try:
        return str(json.loads(listing)["runs"][0]["status"])
    except (ValueError, KeyError, IndexError, TypeError):
        return _UNREADABLE


@contextmanager
def _superlink(place: _Place) -> Iterator[str]:
    """A local SuperLink in simulation mode; yields its address, and ends it and all it started."""
    port, control_port = _free_ports(2)
    command = [
        "flower-superlink",
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
        _end(process)


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise StudyError(f"flower-superlink: expected it to start, got exit status {process.returncode}.")
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(POLL_S)
    raise StudyError(f"flower-superlink: expected it to listen within {START_TIMEOUT_S:g} s, got nothing.")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        end_tree(psutil.Process(process.pid))
    process.wait()


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _gpu_share(n_sites: int) -> float:
    """Fraction of a GPU that each virtual hospital reserves: they share the one there is, or none."""
    return round(1.0 / n_sites, 4) if torch.cuda.is_available() else 0.0


def _toml(values: Mapping[str, Scalar]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
