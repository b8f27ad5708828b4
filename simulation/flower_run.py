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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from server.run_folder import RunFolder, read_status
from shared_model.config import Scalar
from shared_model.errors import StudyError

ROOT = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.3
_CONNECTION = "hipfed"

_ENVIRONMENT = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


def run_on_flower(
    *, folder: RunFolder, run_config: Mapping[str, Scalar], n_sites: int, watch: Callable[[], None]
) -> None:
    """Run the app and wait for its end.

    Args:
        folder: the run folder, which the app writes; Flower's own log goes to flower.log there.
        run_config: all keys of Flower's run config.
        n_sites: hospitals, one virtual SuperNode each.
        watch: called a few times a second while the run goes on.

    Raises:
        StudyError: the run did not end well; the reason is the one of status.json.
    """
    if not (ROOT / "pyproject.toml").exists():
        raise StudyError(
            f"hipfed at {ROOT}: expected its checkout with pyproject.toml, got an installed copy. "
            "Install with `pip install --editable CHECKOUT`."
        )
    folder.write_status("running")
    with (
        _ended_by_sigterm(),
        tempfile.TemporaryDirectory(prefix="hipfed-") as home,
        (folder.path / "flower.log").open("ab") as log,
    ):
        environment = {**os.environ, **_ENVIRONMENT, "FLWR_HOME": home}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
        with _superlink(Path(home), environment, log) as address:
            (Path(home) / "config.toml").write_text(
                f'[superlink]\ndefault = "{_CONNECTION}"\n\n'
                f'[superlink.{_CONNECTION}]\naddress = "{address}"\ninsecure = true\n',
                encoding="utf-8",
            )
            config_file = Path(home) / "run.toml"
            config_file.write_text(_toml(run_config), encoding="utf-8")
            submit = [
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
            try:
                state = _follow(submit, environment, Path(log.name), watch)
            except BaseException as error:
                folder.write_status("failed", f"interrupted ({type(error).__name__})")
                raise
    _check_outcome(folder, flower_state=state)


def _check_outcome(folder: RunFolder, *, flower_state: str) -> None:
    state, reason = read_status(folder.path)
    if state == "completed" and flower_state == "finished:completed":
        return
    if state != "failed":
        reason = f"the app ended without a result (Flower says {flower_state}); see {folder.path / 'flower.log'}"
        folder.write_status("failed", reason)
    raise StudyError(reason)


def _follow(submit: list[str], environment: Mapping[str, str], log: Path, watch: Callable[[], None]) -> str:
    """Submit, wait for the end of the log stream, and return Flower's word on the run."""
    start = log.stat().st_size
    with log.open("ab") as stream:
        process = subprocess.Popen(submit, env=environment, stdout=stream, stderr=stream)  # noqa: S603
    try:
        while process.poll() is None:
            watch()
            time.sleep(POLL_S)
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_S)
    watch()
    text = log.read_bytes()[start:].decode(errors="replace")
    started = re.search(r"Successfully started run (\d+)", text)
    if started is None:
        return f"not started: {text.strip()[-500:]}"
    listing = ["flwr", "ls", _CONNECTION, "--run-id", started.group(1), "--format", "json"]
    end = time.monotonic() + STOP_TIMEOUT_S
    while True:
        status = _listed_status(subprocess.run(listing, env=environment, capture_output=True, check=False).stdout)  # noqa: S603
        if status.startswith("finished") or time.monotonic() > end:
            return status
        time.sleep(POLL_S)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """A SIGTERM ends the run as Ctrl-C does: the SuperLink is stopped, and the run folder says so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _listed_status(listing: bytes) -> str:
    try:
        return str(json.loads(listing)["runs"][0]["status"])
    except (ValueError, KeyError, IndexError, TypeError):
        return "unknown"


@contextmanager
def _superlink(home: Path, environment: Mapping[str, str], log: object) -> Iterator[str]:
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
        str(home / "state.db"),
    ]
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)  # type: ignore[call-overload]  # noqa: S603
    try:
        _wait_for_port(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        _end_tree(process)


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


def _end_tree(process: subprocess.Popen[bytes]) -> None:
    """End the SuperLink and every process below it (Ray's actors too), first politely."""
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        below = []
    process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(below, timeout=STOP_TIMEOUT_S)
    for child in alive:
        child.kill()
    psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
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
