"""A run in Flower's hands, and whose word on it counts. Whole runs are in tests/end_to_end."""

import json
import os
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import server.flower.submission
from server.flower.submission import (
    FlowerFolders,
    check_outcome,
    flower_environment,
    follow,
    listed_status,
    to_toml,
    tolerant,
    write_connection,
)
from server.run_folder.folder import RunFolder, read_status
from server.run_folder.lock import APP_LOCK
from shared_model.config import Scalar
from shared_model.errors import StudyError
from shared_model.process.folder_lock import hold_lock

STARTED = "Successfully started run 77"


def _script(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{body}\n")
    path.chmod(0o755)
    return path


def test_run_counts_only_when_the_app_and_flower_agree(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("completed")

    check_outcome(folder, flower_state="finished:completed", see="flower.log")

    assert read_status(tmp_path) == ("completed", "")


def test_reason_of_the_app_is_the_reason_of_the_failure(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("failed", "handshake: too few")

    with pytest.raises(StudyError, match=r"^handshake: too few$"):
        check_outcome(folder, flower_state="finished:failed", see="flower.log")


@pytest.mark.parametrize(
    ("state", "flower_state"),
    [("running", "finished:failed"), ("running", "finished:completed"), ("completed", "finished:failed")],
)
def test_app_that_ended_without_a_result_is_a_failure(tmp_path: Path, state: str, flower_state: str) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status(state)  # type: ignore[arg-type]

    with pytest.raises(StudyError, match=f"Flower says {flower_state}"):
        check_outcome(folder, flower_state=flower_state, see="flower.log")

    assert read_status(tmp_path)[0] == "failed"
    assert "flower.log" in read_status(tmp_path)[1]


def test_app_that_never_started_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="not started: no such app"):
        check_outcome(RunFolder(tmp_path), flower_state="not started: no such app", see="flower.log")

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
    assert listed_status(listing) == status


def test_run_config_is_toml_that_reads_back(tmp_path: Path) -> None:
    values: dict[str, Scalar] = {
        "cohort": 'C:\\a "b"\n',
        "rate": 1e-05,
        "resume": True,
        "rounds": 3,
        "empty": "",
        "name": "Spät 医院",
    }

    (tmp_path / "run.toml").write_text(to_toml(values), encoding="utf-8")

    assert tomllib.loads((tmp_path / "run.toml").read_text(encoding="utf-8")) == values


def _place(home: Path) -> FlowerFolders:
    """A place whose `flwr` is a file of that name in it."""
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "PATH": f"{home}{os.pathsep}{os.environ['PATH']}"}
    log = (home / "flower.log").open("ab")
    return FlowerFolders(home, environment, log, lambda _: None)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[FlowerFolders]:
    place = _place(tmp_path / "home")
    with place.log:
        yield place


SUBMIT = [sys.executable, "-c", f"print({STARTED!r}, flush=True)"]


def test_outcome_is_what_flower_lists_and_not_the_exit_status(place: FlowerFolders) -> None:
    _script(place.home, "flwr", f"print({json.dumps({'runs': [{'status': 'finished:failed'}]})!r})")
    place.log.write(b"Successfully started run 1\n")  # of an earlier run
    place.log.flush()
    watched: list[int] = []

    slow = [sys.executable, "-c", f"import time; print({STARTED!r}, flush=True); time.sleep(0.5)"]
    state = follow(slow, place, lambda: watched.append(1))

    assert state == "finished:failed"
    assert len(watched) >= 2
    assert STARTED in (place.home / "flower.log").read_text()


def test_listing_does_not_take_a_folder_of_the_user_for_its_argument(
    place: FlowerFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = json.dumps({"runs": [{"status": "finished:completed"}]})
    _script(place.home, "flwr", f"import os; print('an app' if os.path.isdir('hipfed') else {listing!r})")
    (tmp_path / "hipfed").mkdir()  # what `git clone` leaves in the working directory
    monkeypatch.chdir(tmp_path)

    assert follow(SUBMIT, place, lambda: None) == "finished:completed"


def test_listing_that_cannot_be_read_is_kept_in_the_log_and_not_told(
    place: FlowerFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.flower.submission, "STOP_TIMEOUT_S", 0.0)
    _script(place.home, "flwr", "print('{\"success\": false}'); raise SystemExit('no superlink there')")

    assert follow(SUBMIT, place, lambda: None) == "unknown"
    assert (place.home / "flower.log").read_text().endswith('{"success": false}\nno superlink there\n')


def test_completed_run_stays_completed_when_only_the_listing_cannot_be_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("completed")

    check_outcome(folder, flower_state="unknown", see="flower.log")

    assert read_status(tmp_path) == ("completed", "")


def test_superlink_that_cannot_be_asked_is_told_alike_in_status_log_and_message(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("running")
    (tmp_path / "log.txt").write_text("the app's line\n")

    with pytest.raises(StudyError) as caught:
        check_outcome(folder, flower_state="unknown", see="flower.log")

    reason = (
        "the SuperLink can no longer be asked how the run ended: it may have ended, or been started anew. "
        "See flower.log; continue with --resume."
    )
    assert str(caught.value) == reason
    assert read_status(tmp_path) == ("failed", reason)
    first, last = (tmp_path / "log.txt").read_text().splitlines()
    assert first == "the app's line"
    assert last.endswith(f" ERROR the run failed: {reason}")


def test_app_that_ends_after_its_superlink_has_the_last_word(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("running")
    begun = threading.Event()

    def end_late() -> None:
        with hold_lock(tmp_path, APP_LOCK):
            begun.set()
            time.sleep(0.5)
            folder.write_status("failed", "the app's word")

    app = threading.Thread(target=end_late)
    app.start()
    begun.wait()
    with pytest.raises(StudyError, match=r"^the app's word$"):
        check_outcome(folder, flower_state="unknown", see="flower.log")
    app.join()

    assert read_status(tmp_path) == ("failed", "the app's word")


def test_run_that_flower_did_not_accept_tells_its_words(place: FlowerFolders) -> None:
    state = follow([sys.executable, "-c", "print('no such federation')"], place, lambda: None)

    assert state == "not started: no such federation"


def test_interrupt_ends_the_submission_too(place: FlowerFolders) -> None:
    marker = place.home / "pid"

    def interrupt() -> None:
        if marker.exists() and marker.read_text():
            raise KeyboardInterrupt

    command = f"import os, pathlib, time; pathlib.Path({str(marker)!r}).write_text(str(os.getpid())); time.sleep(3600)"
    with pytest.raises(KeyboardInterrupt):
        follow([sys.executable, "-c", command], place, interrupt)

    assert not psutil.pid_exists(int(marker.read_text()))


def test_whatever_is_started_is_put_under_guard(place: FlowerFolders) -> None:
    guarded: list[int] = []

    process = replace(place, guard=guarded.append).start([sys.executable, "-c", "pass"])

    process.wait()
    assert guarded == [process.pid]


def test_watching_that_fails_is_told_once_and_ends_no_run() -> None:
    said: list[str] = []
    watch = tolerant(lambda: print(None + 1), said.append)  # type: ignore[operator]  # noqa: T201

    watch()
    watch()

    (line,) = said
    assert line.startswith("progress can no longer be shown (TypeError: unsupported operand")
    assert line.endswith("the run goes on")


def test_environment_of_flower_names_the_same_cache_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HIPFED_CACHE", "cache")

    assert flower_environment(tmp_path / "home")["HIPFED_CACHE"] == str(tmp_path / "cache")


def test_following_that_breaks_off_stops_the_run_on_a_superlink_that_stays(place: FlowerFolders) -> None:
    stopped: list[str] = []
    slow = [sys.executable, "-c", f"import time; time.sleep(0.5); print({STARTED!r}, flush=True); time.sleep(3600)"]

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(slow, place, interrupt, stop=stopped.append)

    assert stopped == ["77"]


def test_run_whose_log_stream_broke_is_followed_to_its_end(place: FlowerFolders) -> None:
    states = [json.dumps({"runs": [{"status": status}]}) for status in ("running", "running", "finished:completed")]
    _script(
        place.home,
        "flwr",
        "import os; n = len(os.listdir('asked')) if os.path.isdir('asked') else os.mkdir('asked') or 0\n"
        f"open(f'asked/{{n}}', 'w').close(); print({states!r}[n])",
    )

    assert follow(SUBMIT, place, lambda: None, patience_s=60.0) == "finished:completed"


def test_connection_without_a_root_certificate_is_insecure_and_with_one_is_not(tmp_path: Path) -> None:
    write_connection(tmp_path, "127.0.0.1:1")
    insecure = tomllib.loads((tmp_path / "config.toml").read_text())
    write_connection(tmp_path, "127.0.0.1:1", root_certificates=tmp_path / "ca.crt")
    secure = tomllib.loads((tmp_path / "config.toml").read_text())

    assert insecure["superlink"]["hipfed"] == {"address": "127.0.0.1:1", "insecure": True}
    assert secure["superlink"]["hipfed"] == {
        "address": "127.0.0.1:1",
        "root-certificates": str(tmp_path / "ca.crt"),
    }
