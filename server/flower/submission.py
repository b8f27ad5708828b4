"""A run handed to a SuperLink, followed to its end, and judged.

`flwr run --stream` exits with 0 even when the app failed, so the outcome is what `flwr ls` says.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

import psutil

from server.flower.bundle import stage_app
from server.run_folder.folder import RunFolder, read_status
from server.run_folder.lock import APP_LOCK
from shared_model.config import Scalar
from shared_model.errors import StudyError
from shared_model.identity.proxy_variables import without_proxies
from shared_model.process.folder_lock import lock_holder
from shared_model.process.guardian import STOP_TIMEOUT_S, end_tree

ROOT = Path(__file__).resolve().parents[2]
APP = "hipfed"  # Flower takes no other kind of name for an app's folder than for the app
CONNECTION = "hipfed"
POLL_S = 0.3
APP_END_S = 30.0  # until the app notices that its run was stopped
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
class FlowerFolders:
    """Where Flower's commands of one run work.

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


def require_checkout() -> None:
    """Flower's bundle is made of the checkout's files.

    Raises:
        StudyError: hipfed was installed without it.
    """
    if not (ROOT / "pyproject.toml").exists():
        raise StudyError(
            f"hipfed at {ROOT}: expected its checkout with pyproject.toml, got an installed copy. "
            "Install with `pip install --editable CHECKOUT`."
        )


def flower_environment(home: Path, *, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of Flower's commands: its folder is `home`, it installs, reports and looks up nothing."""
    environment = {**without_proxies(inherited), **_ENVIRONMENT, "FLWR_HOME": str(home)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    if environment.get(_CACHE):
        environment[_CACHE] = str(Path(environment[_CACHE]).absolute())
    return environment


def write_connection(home: Path, address: str, *, root_certificates: Path | None = None) -> None:
    """Tell Flower's commands where the SuperLink is; without a root certificate they do not use TLS."""
    trust = (
        "insecure = true" if root_certificates is None else f"root-certificates = {json.dumps(str(root_certificates))}"
    )
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\naddress = "{address}"\n{trust}\n',
        encoding="utf-8",
    )


def submission(home: Path, run_config: Mapping[str, Scalar], *options: str, staging: Path) -> list[str]:
    """The command that submits a run.

    Args:
        home: where its run config is written.
        run_config: all keys of Flower's run config.
        options: further ones of `flwr run`.
        staging: a folder that lasts as long as the command; takes the app's files.
    """
    config_file = home / "run.toml"
    config_file.write_text(to_toml(run_config), encoding="utf-8")
    # Not in `staging` itself: where it is the commands' own folder, the connection of the same name would mean the app.
    app = stage_app(ROOT, staging / "app" / APP)
    return ["flwr", "run", str(app), CONNECTION, "--stream", "--run-config", str(config_file), *options]


def to_toml(values: Mapping[str, Scalar]) -> str:
    """A flat TOML file."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def follow(
    submit: Sequence[str],
    place: FlowerFolders,
    watch: Callable[[], None],
    *,
    stop: Callable[[str], None] | None = None,
    patience_s: float = STOP_TIMEOUT_S,
) -> str:
    """Submit, wait for the run's end, and return Flower's word on it.

    Args:
        submit: the command that submits and streams the log.
        place: where it works.
        watch: called a few times a second.
        stop: ends a run by its id where following it is broken off; None where it ends with its SuperLink.
        patience_s: how long a run may go on after its log stream has ended, in seconds.
    """
    log = Path(place.log.name)
    start = log.stat().st_size
    process = place.start(submit)
    try:
        while process.poll() is None:
            watch()
            time.sleep(POLL_S)
    except BaseException:
        if stop is not None:
            run_id = _await_run_id(process, log, start)
            end_process(process)
            if run_id is not None:
                stop(run_id)
        raise
    finally:
        end_process(process)
    watch()
    run_id = _read_run_id(log, start)
    if run_id is None:
        return f"not started: {_read_from(log, start).strip()[-500:]}"
    try:
        return _await_end(place, run_id, watch, patience_s=patience_s)
    except BaseException:
        if stop is not None:
            stop(run_id)
        raise


def _read_from(log: Path, start: int) -> str:
    return log.read_bytes()[start:].decode(errors="replace")


def _read_run_id(log: Path, start: int) -> str | None:
    started = re.search(r"Successfully started run (\d+)", _read_from(log, start))
    return None if started is None else started.group(1)


def _await_run_id(process: subprocess.Popen[bytes], log: Path, start: int) -> str | None:
    """A submission that is under way is let through: a run whose id nobody knows could not be stopped."""
    end = time.monotonic() + STOP_TIMEOUT_S
    while process.poll() is None and _read_run_id(log, start) is None and time.monotonic() < end:
        time.sleep(POLL_S)
    return _read_run_id(log, start)


def _await_end(place: FlowerFolders, run_id: str, watch: Callable[[], None], *, patience_s: float) -> str:
    listing = ["flwr", "ls", CONNECTION, "--run-id", run_id, "--format", "json"]
    end, unreadable_end = time.monotonic() + patience_s, time.monotonic() + STOP_TIMEOUT_S
    while True:
        done = subprocess.run(listing, env=place.environment, cwd=place.home, capture_output=True, check=False)  # noqa: S603
        status = listed_status(done.stdout)
        now = time.monotonic()
        if status.startswith("finished"):
            return status
        if status != _UNREADABLE:
            unreadable_end = now + STOP_TIMEOUT_S
        if now > end or now > unreadable_end:
            if status == _UNREADABLE:
                place.log.write(done.stdout + done.stderr)
                place.log.flush()
            return status
        watch()
        time.sleep(POLL_S)


def listed_status(listing: bytes) -> str:
    """Flower's word in the output of `flwr ls`, or "unknown"."""
    try:
        return str(json.loads(listing)["runs"][0]["status"])
    except (ValueError, KeyError, IndexError, TypeError):
        return _UNREADABLE


def await_app_end(folder: RunFolder) -> bool:
    """Give the app, which may be writing a checkpoint, its time to end; returns whether it has ended."""
    end = time.monotonic() + APP_END_S
    while lock_holder(folder.path, APP_LOCK) is not None:
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


def check_outcome(folder: RunFolder, *, flower_state: str, see: str) -> None:
    """Make status.json and log.txt tell how the run ended, by the app's word and Flower's.

    Args:
        folder: of the run.
        flower_state: what `follow` returned.
        see: where the user learns how the SuperLink is.

    Raises:
        StudyError: it did not end well.
    """
    if flower_state == _UNREADABLE:
        await_app_end(folder)  # its own word tells more
    state, reason = read_status(folder.path)
    # The app's last act is to write "completed": where Flower's word cannot be read, that is enough.
    if state == "completed" and flower_state in ("finished:completed", _UNREADABLE):
        return
    if state != "failed":
        reason = _explain_outcome(folder, flower_state, see)
        folder.write_status("failed", reason)
        _log_last(folder, reason)
    raise StudyError(reason)


def _explain_outcome(folder: RunFolder, flower_state: str, see: str) -> str:
    if flower_state == _UNREADABLE:
        return (
            "the SuperLink can no longer be asked how the run ended: it may have ended, or been started anew. "
            f"See {see}; continue with --resume."
        )
    return f"the app ended without a result (Flower says {flower_state}); see {folder.path / 'flower.log'}"


def _log_last(folder: RunFolder, reason: str) -> None:
    """The app's log ends with what status.json says; on a full disk it does not."""
    now = datetime.now().astimezone().replace(tzinfo=None)
    with suppress(OSError), (folder.path / "log.txt").open("a", encoding="utf-8") as log:
        log.write(f"{now.isoformat(timespec='milliseconds')} ERROR the run failed: {reason}\n")


def tolerant(watch: Callable[[], None], say: Callable[[str], None]) -> Callable[[], None]:
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


def end_process(process: subprocess.Popen[bytes]) -> None:
    """End a child and all below it, and take its exit status."""
    if process.poll() is None:
        end_tree(psutil.Process(process.pid))
    process.wait()
