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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import simulation.flower_run
from server.run_folder import RunFolder, read_status
from shared_model.config import Scalar
from shared_model.errors import StudyError
from simulation.flower_run import (
    _check_outcome,
    _environment,
    _follow,
    _free_ports,
    _listed_status,
    _Place,
    _stopped_by_signals,
    _tolerant,
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


def _place(home: Path) -> _Place:
    """A place whose `flwr` is a file of that name in it."""
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "PATH": f"{home}{os.pathsep}{os.environ['PATH']}"}
    log = (home / "flower.log").open("ab")
    return _Place(home, environment, log, lambda _: None)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[_Place]:
    place = _place(tmp_path / "home")
    with place.log:
        yield place


SUBMIT = [sys.executable, "-c", f"print({STARTED!r}, flush=True)"]


def test_outcome_is_what_flower_lists_and_not_the_exit_status(place: _Place) -> None:
    _script(place.home, "flwr", f"print({json.dumps({'runs': [{'status': 'finished:failed'}]})!r})")
    place.log.write(b"Successfully started run 1\n")  # of an earlier run
    place.log.flush()
    watched: list[int] = []

    slow = [sys.executable, "-c", f"import time; print({STARTED!r}, flush=True); time.sleep(0.5)"]
    state = _follow(slow, place, lambda: watched.append(1))

    assert state == "finished:failed"
    assert len(watched) >= 2
    assert STARTED in (place.home / "flower.log").read_text()


def test_listing_does_not_take_a_folder_of_the_user_for_its_argument(
    place: _Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = json.dumps({"runs": [{"status": "finished:completed"}]})
    _script(place.home, "flwr", f"import os; print('an app' if os.path.isdir('hipfed') else {listing!r})")
    (tmp_path / "hipfed").mkdir()  # what `git clone` leaves in the working directory
    monkeypatch.chdir(tmp_path)

    assert _follow(SUBMIT, place, lambda: None) == "finished:completed"


def test_listing_that_cannot_be_read_tells_what_it_said(place: _Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation.flower_run, "STOP_TIMEOUT_S", 0.0)
    _script(place.home, "flwr", "raise SystemExit('no superlink there')")

    assert _follow(SUBMIT, place, lambda: None) == "unknown: no superlink there"


def test_completed_run_stays_completed_when_only_the_listing_cannot_be_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("completed")

    _check_outcome(folder, flower_state="unknown: no superlink there")

    assert read_status(tmp_path) == ("completed", "")


def test_run_that_did_not_complete_fails_with_what_the_listing_said(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("running")

    with pytest.raises(StudyError, match="Flower says unknown: no superlink there"):
        _check_outcome(folder, flower_state="unknown: no superlink there")


def test_run_that_flower_did_not_accept_tells_its_words(place: _Place) -> None:
    state = _follow([sys.executable, "-c", "print('no such federation')"], place, lambda: None)

    assert state == "not started: no such federation"


def test_interrupt_ends_the_submission_too(place: _Place) -> None:
    marker = place.home / "pid"

    def interrupt() -> None:
        if marker.exists() and marker.read_text():
            raise KeyboardInterrupt

    command = f"import os, pathlib, time; pathlib.Path({str(marker)!r}).write_text(str(os.getpid())); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        _follow([sys.executable, "-c", command], place, interrupt)

    assert not psutil.pid_exists(int(marker.read_text()))


def test_whatever_is_started_is_put_under_guard(place: _Place) -> None:
    guarded: list[int] = []

    process = replace(place, guard=guarded.append).start([sys.executable, "-c", "pass"])

    process.wait()
    assert guarded == [process.pid]


def test_watching_that_fails_is_told_once_and_ends_no_run() -> None:
    said: list[str] = []
    watch = _tolerant(lambda: print(None + 1), said.append)  # type: ignore[operator]  # noqa: T201

    watch()
    watch()

    (line,) = said
    assert line.startswith("progress can no longer be shown (TypeError: unsupported operand")
    assert line.endswith("the run goes on")


@pytest.mark.parametrize(("number", "ending", "code"), [(signal.SIGINT, KeyboardInterrupt, ()), (15, SystemExit, 143)])
def test_signal_is_answered_at_once_and_a_second_does_not_break_off_the_ending(
    number: int, ending: type[BaseException], code: object
) -> None:
    before = signal.getsignal(number)
    said: list[str] = []
    ended = False

    def run() -> None:
        nonlocal ended
        with _stopped_by_signals(said.append):
            try:
                os.kill(os.getpid(), number)
                time.sleep(5)
            finally:
                os.kill(os.getpid(), number)
                ended = True

    with pytest.raises(ending) as caught:
        run()

    assert said == ["stopping…", "still stopping…"]
    assert ended
    assert getattr(caught.value, "code", ()) == code
    assert signal.getsignal(number) is before


def test_run_outside_the_main_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def run() -> None:
        with _stopped_by_signals(lambda _: None):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert seen == [before]


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[str], list[str]]]:
    """Interrupts a run with a SuperLink that says how things stand when it ends; returns (states, lines shown)."""

    def run(at_the_end: Callable[[RunFolder], None] = lambda _: None) -> tuple[list[str], list[str]]:
        folder, states, said = RunFolder(tmp_path / "run"), list[str](), list[str]()

        @contextmanager
        def superlink(_: object) -> Iterator[str]:
            try:
                yield "127.0.0.1:1"
            finally:
                at_the_end(folder)
                states.append(read_status(folder.path)[0])

        monkeypatch.setattr(simulation.flower_run, "_superlink", superlink)
        monkeypatch.setattr(simulation.flower_run, "_follow", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            run_on_flower(folder=folder, run_config={}, n_sites=3, watch=lambda: None, say=said.append)
        return states, said

    return run


def test_interrupt_is_written_only_after_the_app_has_ended(
    tmp_path: Path, interrupted: Callable[..., tuple[list[str], list[str]]]
) -> None:
    states, said = interrupted()

    assert states == ["running"]
    assert said == ["stopping…"]
    assert read_status(tmp_path / "run") == ("failed", "interrupted; continue with --resume")


def test_app_that_finishes_during_an_interrupt_has_finished(
    tmp_path: Path, interrupted: Callable[..., tuple[list[str], list[str]]]
) -> None:
    interrupted(lambda folder: folder.write_status("completed"))

    assert read_status(tmp_path / "run") == ("completed", "")


def test_superlink_that_does_not_start_is_told_in_the_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise StudyError("flower-superlink: expected it to start, got exit status 3.")

    monkeypatch.setattr(simulation.flower_run, "_superlink", refuse)
    with pytest.raises(StudyError):
        run_on_flower(folder=RunFolder(tmp_path), run_config={}, n_sites=3, watch=lambda: None, say=print)

    assert read_status(tmp_path) == ("failed", "flower-superlink: expected it to start, got exit status 3.")


def test_environment_of_flower_names_the_same_cache_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HIPFED_CACHE", "cache")

    assert _environment(tmp_path / "home")["HIPFED_CACHE"] == str(tmp_path / "cache")


def test_installed_copy_without_its_checkout_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation.flower_run, "ROOT", tmp_path)

    with pytest.raises(StudyError, match=r"expected its checkout with pyproject\.toml, got an installed copy"):
        run_on_flower(folder=RunFolder(tmp_path / "run"), run_config={}, n_sites=3, watch=lambda: None, say=print)
