"""Runs that are being written, broken or large never break a page."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from server.dashboard.file_cache import FileCache
from server.dashboard.pages import Pages
from server.dashboard.reading import RunReader
from server.run_folder.lock import APP_LOCK
from tests.server.dashboard.asking import Client
from tests.server.report.run_folders import HOSTILE, write, write_failed_run, write_hostile_run, write_run

Connect = Callable[..., Client]


def state_of(runs: Path, name: str = "plain", *, locked: frozenset[int] = frozenset()) -> tuple[str, str]:
    rows = RunReader(runs.resolve(), locked=lambda: locked).list_summaries()
    return next((row.state, row.reason) for row in rows if row.name == name)


def make_running(run: Path, *, quiet_s: float) -> None:
    write(run, "status.json", {"state": "running", "reason": ""})
    for file in run.iterdir():
        os.utime(file, (time.time() - quiet_s,) * 2)


def test_run_whose_lock_nobody_holds_is_interrupted_after_a_while(runs: Path) -> None:
    make_running(runs / "plain", quiet_s=5)
    assert state_of(runs)[0] == "running"
    make_running(runs / "plain", quiet_s=60)
    assert state_of(runs)[0] == "interrupted"
    (runs / "plain" / APP_LOCK).touch()
    inode = (runs / "plain" / APP_LOCK).stat().st_ino
    assert state_of(runs, locked=frozenset({inode}))[0] == "running"


def test_last_line_that_is_being_written_is_left_out(runs: Path) -> None:
    with (runs / "plain" / "rounds.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"round": 99, "phase": "fus')
    detail = RunReader(runs.resolve()).read_detail("plain")
    assert detail is not None
    assert not detail.problems
    assert detail.summary.last is not None
    assert detail.summary.last.round != 99


@pytest.mark.parametrize("name", ["status.json", "config.json", "metrics.json", "explanations.json"])
@pytest.mark.parametrize(
    "content", ["{", "[]", "", '{"test": 3, "schema": [], "state": "odd", "modalities": 1}', "\x00"]
)
def test_damaged_file_is_named_and_other_runs_are_shown(connect: Connect, runs: Path, name: str, content: str) -> None:
    write_run(runs / "other")
    (runs / "plain" / name).write_text(content, encoding="utf-8")
    answer = connect().get("/run/plain")
    assert answer.status_code == 200
    assert f"{name}: expected" in answer.text
    assert state_of(runs, "other")[0] == "completed"


@pytest.mark.parametrize("name", ["status.json", "config.json", "rounds.jsonl", "metrics.json", "explanations.json"])
def test_page_opens_when_a_file_has_vanished(connect: Connect, runs: Path, name: str) -> None:
    (runs / "plain" / name).unlink()
    write_run(runs / "other")
    for path in ("/", "/run/plain", "/compare?run=plain&run=other"):
        assert connect().get(path).status_code == 200
    report = connect().get("/report/plain")
    assert report.status_code == (500 if name == "status.json" else 200)
    assert ("The report of this run cannot be shown" in report.text) == (name == "status.json")


@pytest.mark.parametrize("name", ["status.json", "config.json", "rounds.jsonl", "metrics.json", "explanations.json"])
def test_no_page_breaks_at_any_moment_of_a_file_s_being_written(connect: Connect, runs: Path, name: str) -> None:
    file = write_run(runs / "other") / name
    whole = file.read_bytes()
    for n_bytes in range(0, len(whole), len(whole) // 5):
        file.write_bytes(whole[:n_bytes])
        client = connect()
        for path in ("/", "/run/other", "/compare?run=plain&run=other"):
            assert client.get(path).status_code == 200, (path, n_bytes)


def test_page_that_fails_in_a_way_nobody_thought_of_says_so(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Pages, "_show_run", fail)
    answer = connect().get("/run/plain")
    assert answer.status_code == 500
    assert "This page cannot be shown" in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_folder_with_checkpoints_only_says_what_is_missing(runs: Path) -> None:
    (runs / "bare" / "checkpoints").mkdir(parents=True)
    assert state_of(runs, "bare")[0] == "damaged"
    assert state_of(runs, "bare")[1].startswith("status.json: expected the state")


def test_failed_run_tells_its_reason(connect: Connect, runs: Path) -> None:
    write_failed_run(runs / "failed", reason="round 1: no quorum")
    assert state_of(runs, "failed") == ("failed", "round 1: no quorum")
    assert "no answer within 900 s" in connect().get("/run/failed").text


def test_hostile_names_are_text(connect: Connect, runs: Path) -> None:
    names = [name.replace("/", "|") for name in HOSTILE]
    for name in names:
        write_run(runs / name)
    write_hostile_run(runs / "hostile")
    client = connect()
    pages = [client.get("/"), client.get("/run/hostile"), client.get("/compare", params={"run": names[:6]})]
    for page in pages:
        assert page.status_code == 200
        assert "<script>window" not in page.text
        assert "<img src=x" not in page.text


def test_list_reads_no_file_again_of_runs_that_have_ended(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(runs / "second")
    reader = RunReader(runs.resolve(), locked=frozenset)
    before = reader.list_summaries()
    monkeypatch.setattr(FileCache, "read", Mock(side_effect=AssertionError("a file was read again")))

    assert reader.list_summaries() == before
    assert len(before) == 2
