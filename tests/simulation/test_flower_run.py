"""What surrounds Flower: processes, ports, and whose word counts. Whole runs are in tests/end_to_end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import psutil
import pytest

import simulation.flower_run
from server.run_folder import RunFolder, read_status
from shared_model.config import Scalar
from shared_model.errors import StudyError
from simulation.flower_run import (
    _check_outcome,
    _end_tree,
    _ended_by_sigterm,
    _follow,
    _free_ports,
    _listed_status,
    _toml,
    _wait_for_port,
    run_on_flower,
)

STARTED = "Successfully started run 77"


def _script(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{body}\n")
    path.chmod(0o755)
    return path


def test_run_counts_only_when_the_app_and_flower_agree(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("completed")

    _check_outcome(folder, flower_state="finished:completed")

    assert read_status(tmp_path) == ("completed", "")


def test_reason_of_the_app_is_the_reason_of_the_failure(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("failed", "handshake: too few")

    with pytest.raises(StudyError, match=r"^handshake: too few$"):
        _check_outcome(folder, flower_state="finished:failed")


@pytest.mark.parametrize(
    ("state", "flower_state"),
    [("running", "finished:failed"), ("running", "finished:completed"), ("completed", "finished:failed")],
)
def test_app_that_ended_without_a_result_is_a_failure(tmp_path: Path, state: str, flower_state: str) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status(state)  # type: ignore[arg-type]

    with pytest.raises(StudyError, match=f"Flower says {flower_state}"):
        _check_outcome(folder, flower_state=flower_state)

    assert read_status(tmp_path)[0] == "failed"
    assert "flower.log" in read_status(tmp_path)[1]


def test_app_that_never_started_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="not started: no such app"):
        _check_outcome(RunFolder(tmp_path), flower_state="not started: no such app")

    assert read_status(tmp_path)[0] == "failed"


@pytest.mark.parametrize(
    ("listing", "status"),
    [
        (b"", "unknown"),
        (b"not json", "unknown"),
        (b"[]", "unknown"),
        (b'{"runs": []}', "unknown"),
        (b'{"runs": [{}]}', "unknown"),
        (b'{"runs": [{"status": "running"}]}', "running"),
        (b'{"runs": [{"status": "finished:failed"}]}', "finished:failed"),
    ],
)
def test_status_is_what_flower_lists_or_unknown(listing: bytes, status: str) -> None:
    assert _listed_status(listing) == status


def test_run_config_is_toml_that_reads_back(tmp_path: Path) -> None:
    values: dict[str, Scalar] = {
        "cohort": 'C:\\a "b"\n',
        "rate": 1e-05,
        "resume": True,
        "rounds": 3,
        "empty": "",
        "name": "Spät 医院",
    }

    (tmp_path / "run.toml").write_text(_toml(values), encoding="utf-8")

    assert tomllib.loads((tmp_path / "run.toml").read_text(encoding="utf-8")) == values


def test_free_ports_differ_and_can_be_taken() -> None:
    ports = _free_ports(4)

    assert len(set(ports)) == 4
    for port in ports:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))


def test_waiting_for_a_superlink_that_ended_tells_its_exit_status() -> None:
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    process.wait()

    with pytest.raises(StudyError, match="expected it to start, got exit status 3"):
        _wait_for_port(_free_ports(1)[0], process)


def test_waiting_for_a_superlink_that_does_not_listen_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation.flower_run, "START_TIMEOUT_S", 0.2)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with pytest.raises(StudyError, match=r"expected it to listen within 0\.2 s"):
            _wait_for_port(_free_ports(1)[0], process)
    finally:
        process.kill()
        process.wait()


def test_ending_ends_every_process_below(monkeypatch: pytest.MonkeyPatch) -> None:
    # the child ignores SIGTERM, as a hung worker would
    child = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys, time; "
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE); "
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        child_pid = int(process.stdout.readline())
    monkeypatch.setattr(simulation.flower_run, "STOP_TIMEOUT_S", 0.5)

    _end_tree(process)

    assert process.poll() is not None
    assert not psutil.pid_exists(child_pid) or psutil.Process(child_pid).status() == psutil.STATUS_ZOMBIE


def _fake_flwr(tmp_path: Path, listing: str) -> dict[str, str]:
    """A `flwr` whose only command, `ls`, prints this."""
    _script(tmp_path, "flwr", f"print({listing!r})")
    return {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}


def test_outcome_is_what_flower_lists_and_not_the_exit_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = _fake_flwr(tmp_path, json.dumps({"runs": [{"status": "finished:failed"}]}))
    monkeypatch.setenv("PATH", environment["PATH"])
    log = tmp_path / "flower.log"
    log.write_text("Successfully started run 1\n")  # of an earlier run
    watched: list[int] = []

    state = _follow(
        [sys.executable, "-c", f"import time; print({STARTED!r}, flush=True); time.sleep(0.5)"],
        environment,
        log,
        lambda: watched.append(1),
    )

    assert state == "finished:failed"
    assert len(watched) >= 2
    assert STARTED in log.read_text()


def test_run_that_flower_did_not_accept_tells_its_words(tmp_path: Path) -> None:
    log = tmp_path / "flower.log"
    log.touch()

    state = _follow([sys.executable, "-c", "print('no such federation')"], dict(os.environ), log, lambda: None)

    assert state == "not started: no such federation"


def test_interrupt_ends_the_submission_too(tmp_path: Path) -> None:
    log = tmp_path / "flower.log"
    log.touch()
    marker = tmp_path / "pid"

    def interrupt() -> None:
        if marker.exists() and marker.read_text():
            raise KeyboardInterrupt

    command = f"import os, pathlib, time; pathlib.Path({str(marker)!r}).write_text(str(os.getpid())); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        _follow([sys.executable, "-c", command], dict(os.environ), log, interrupt)

    assert not psutil.pid_exists(int(marker.read_text()))


def test_sigterm_ends_a_run_as_an_interrupt_would_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def run() -> None:
        with _ended_by_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    with pytest.raises(SystemExit) as caught:
        run()

    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_run_outside_the_main_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def run() -> None:
        with _ended_by_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert seen == [before]


def test_installed_copy_without_its_checkout_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation.flower_run, "ROOT", tmp_path)

    with pytest.raises(StudyError, match=r"expected its checkout with pyproject\.toml, got an installed copy"):
        run_on_flower(folder=RunFolder(tmp_path / "run"), run_config={}, n_sites=3, watch=lambda: None)
