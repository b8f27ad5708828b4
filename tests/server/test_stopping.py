"""What a signal does to a run, and what status.json says of one that was broken off."""

import os
import pty
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from server.run_folder.folder import RunFolder, read_status
from server.stopping import STOPS, Stopped, stop_code, stopped_by_signals, telling_its_end
from shared_model.errors import HipfedError, SettingsError, StudyError


@pytest.mark.parametrize(("number", "ending", "code"), [(signal.SIGINT, KeyboardInterrupt, ()), (15, Stopped, 143)])
def test_signal_is_answered_at_once_and_a_second_does_not_break_off_the_ending(
    number: int, ending: type[BaseException], code: object
) -> None:
    before = signal.getsignal(number)
    said: list[str] = []
    ended = False

    def run() -> None:
        nonlocal ended
        with stopped_by_signals(said.append):
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_run_that_a_signal_ends_is_interrupted(number: signal.Signals, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with (
        pytest.raises(STOPS) as caught,
        telling_its_end(folder),
        stopped_by_signals(lambda _: None, also=[signal.SIGHUP]),
    ):
        signal.raise_signal(number)

    assert read_status(tmp_path) == ("interrupted", "continue with --resume")
    assert stop_code(caught.value) == 128 + number


def test_signal_that_cannot_be_shown_interrupts_all_the_same(tmp_path: Path) -> None:
    def fail(_: str) -> None:
        raise ImportError("cannot import name from a partially initialized module")

    with pytest.raises(Stopped), telling_its_end(RunFolder(tmp_path)), stopped_by_signals(fail):
        signal.raise_signal(signal.SIGTERM)

    assert read_status(tmp_path)[0] == "interrupted"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("flwr: expected 1.41.0, got 1.42.0", r"flwr: expected 1\.41\.0, got 1\.42\.0"),
        (143, "got its own, with exit status 143"),
        (1, "got its own, with exit status 1"),
        (0, "got its own, with exit status 0"),
        (None, "got its own, with exit status 0"),
    ],
)
def test_run_whose_launcher_exits_without_a_signal_has_failed(
    code: str | int | None, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=reason) as caught, telling_its_end(RunFolder(tmp_path)):
        raise SystemExit(code)

    assert read_status(tmp_path) == ("failed", str(caught.value))


@pytest.mark.parametrize("error", [SettingsError("no such file"), OSError("no such file"), SystemExit(1)])
def test_failure_after_the_app_has_finished_leaves_the_result(error: BaseException, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_status("completed")
    with pytest.raises((HipfedError, OSError)), telling_its_end(folder):
        raise error

    assert read_status(tmp_path) == ("completed", "")


def test_signal_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals(lambda _: None, also=[signal.SIGHUP]):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_lost_terminal_is_written_to_no_more() -> None:
    script = (
        "import signal, sys\n"
        "from server.stopping import stopped_by_signals\n"
        "with stopped_by_signals(lambda text: print(text, flush=True), also=[signal.SIGHUP]):\n"
        "    print('ready', flush=True); signal.pause()\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", script])  # noqa: S606
    while b"ready" not in os.read(terminal, 1024):
        pass
    os.close(terminal)  # the system tells it by SIGHUP

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGHUP


def test_run_outside_the_main_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def run() -> None:
        with stopped_by_signals(lambda _: None):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert seen == [before]
