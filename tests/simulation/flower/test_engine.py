"""The SuperLink of one simulated run, and what is told when it breaks off. Whole runs are in tests/end_to_end."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import server.flower.submission
import simulation.flower.engine
from server.flower.submission import CONNECTION, FlowerFolders
from server.run_folder.folder import RunFolder, read_status
from shared_model.errors import StudyError
from shared_model.process.ports import free_ports
from simulation.flower.engine import _wait_for_port, run_on_flower


def test_waiting_for_a_superlink_that_ended_tells_its_exit_status() -> None:
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    process.wait()

    with pytest.raises(StudyError, match="expected it to start, got exit status 3"):
        _wait_for_port(free_ports(1)[0], process)


def test_waiting_for_a_superlink_that_does_not_listen_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation.flower.engine, "START_TIMEOUT_S", 0.2)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    try:
        with pytest.raises(StudyError, match=r"expected it to listen within 0\.2 s"):
            _wait_for_port(free_ports(1)[0], process)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[str], list[str]]]:
    """Interrupts a run with a SuperLink that says how things stand when it ends; returns (states, lines shown)."""

    def run(
        at_the_end: Callable[[RunFolder], None] = lambda _: None, number: signal.Signals = signal.SIGINT
    ) -> tuple[list[str], list[str]]:
        folder, states, said = RunFolder(tmp_path / "run"), list[str](), list[str]()

        @contextmanager
        def superlink(_: object) -> Iterator[str]:
            try:
                yield "127.0.0.1:1"
            finally:
                at_the_end(folder)
                states.append(read_status(folder.path)[0])

        monkeypatch.setattr(simulation.flower.engine, "_superlink", superlink)
        monkeypatch.setattr(simulation.flower.engine, "follow", lambda *_: signal.raise_signal(number))
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run_on_flower(folder=folder, run_config={}, n_sites=3, watch=lambda: None, say=said.append)
        return states, said

    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_is_written_only_after_the_app_has_ended(
    number: signal.Signals, tmp_path: Path, interrupted: Callable[..., tuple[list[str], list[str]]]
) -> None:
    states, said = interrupted(number=number)

    assert states == ["running"]
    assert said == ["stopping…"]
    assert read_status(tmp_path / "run") == ("interrupted", "continue with --resume")


def test_app_that_finishes_during_an_interrupt_has_finished(
    tmp_path: Path, interrupted: Callable[..., tuple[list[str], list[str]]]
) -> None:
    interrupted(lambda folder: folder.write_status("completed"))

    assert read_status(tmp_path / "run") == ("completed", "")


TIMED_OUT = (
    b"Exception: The current node timed out during startup. This could happen because some of the raylet failed\n"
)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[tuple[bytes, str]]], list[str]]:
    """Has each attempt end with this log and this word of Flower's; returns the lines shown."""

    def end_with(endings: list[tuple[bytes, str]]) -> list[str]:
        left = iter(endings)

        @contextmanager
        def superlink(_: object) -> Iterator[str]:
            yield "127.0.0.1:1"

        def follow(_: object, place: FlowerFolders, __: object) -> str:
            assert not (place.home / CONNECTION).exists()  # `flwr ls` would take it for an app
            told, state = next(left)
            place.log.write(told)
            place.log.flush()
            return state

        monkeypatch.setattr(simulation.flower.engine, "_superlink", superlink)
        monkeypatch.setattr(simulation.flower.engine, "follow", follow)
        return []

    return end_with


def _run(path: Path, said: list[str]) -> None:
    run_on_flower(folder=RunFolder(path), run_config={}, n_sites=3, watch=lambda: None, say=said.append)


def test_ray_that_had_too_little_time_to_start_is_started_once_more(
    tmp_path: Path, attempts: Callable[[list[tuple[bytes, str]]], list[str]]
) -> None:
    said = attempts([(TIMED_OUT, "finished:failed"), (b"", "finished:completed")])
    with pytest.raises(StudyError, match="Flower says finished:completed"):  # there is no app here that says so too
        _run(tmp_path, said)

    assert said == ["Ray did not start within its 30 s, as the machine is busy; trying once more"]


def test_ray_that_cannot_start_twice_is_told_with_its_cause(
    tmp_path: Path, attempts: Callable[[list[tuple[bytes, str]]], list[str]]
) -> None:
    said = attempts([(TIMED_OUT, "finished:failed"), (TIMED_OUT, "finished:failed")])
    with pytest.raises(StudyError, match=r"the machine is too busy \(\d+ processes want its \d+ cores\)") as caught:
        _run(tmp_path, said)

    assert read_status(tmp_path) == ("failed", str(caught.value))
    assert str(caught.value).endswith("Run fewer things at once, then continue with --resume.")


def test_run_that_fails_otherwise_is_not_tried_again(
    tmp_path: Path, attempts: Callable[[list[tuple[bytes, str]]], list[str]]
) -> None:
    (tmp_path / "flower.log").write_bytes(TIMED_OUT)  # of an earlier run in this folder
    said = attempts([(b"KeyError\n", "finished:failed")])
    with pytest.raises(StudyError, match="Flower says finished:failed"):
        _run(tmp_path, said)

    assert said == []


def test_superlink_that_does_not_start_is_told_in_the_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise StudyError("flower-superlink: expected it to start, got exit status 3.")

    monkeypatch.setattr(simulation.flower.engine, "_superlink", refuse)
    with pytest.raises(StudyError):
        run_on_flower(folder=RunFolder(tmp_path), run_config={}, n_sites=3, watch=lambda: None, say=print)

    assert read_status(tmp_path) == ("failed", "flower-superlink: expected it to start, got exit status 3.")


def test_installed_copy_without_its_checkout_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.flower.submission, "ROOT", tmp_path)

    with pytest.raises(StudyError, match=r"expected its checkout with pyproject\.toml, got an installed copy"):
        run_on_flower(folder=RunFolder(tmp_path / "run"), run_config={}, n_sites=3, watch=lambda: None, say=print)
