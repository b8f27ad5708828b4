import errno
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from flwr.app import Context

import server.app
from server.app import main
from server.flower.run_config import format_enrolled, parse_enrolled
from server.report.writing import REPORT
from server.run_folder.folder import RunFolder, read_status
from server.run_folder.lock import APP_LOCK, LAUNCHER_LOCK
from shared_model.errors import StudyError
from shared_model.process.folder_lock import hold_lock
from shared_model.protocol.messages import HANDSHAKE
from simulation.in_process import InProcessLink
from tests.server.fake_grid import FakeGrid, make_context
from tests.server.faulty_links import FAULTS, FaultyLink, RecordingLink
from tests.server.small_cohort import open_workers, small_settings


@pytest.fixture(autouse=True)
def _own_log_handlers() -> Iterator[None]:
    """The app adds handlers once a process; here many runs share one."""
    log = logging.getLogger("hipfed.server")
    before = list(log.handlers)
    yield
    for handler in set(log.handlers) - set(before):
        log.removeHandler(handler)
        handler.close()


@pytest.fixture(autouse=True)
def reported(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, str]]:
    """Folders whose report was asked for, and their state then; the report itself has tests of its own."""
    asked: list[tuple[Path, str]] = []

    def ask(path: Path, say: Callable[[str], None]) -> None:
        asked.append((path, read_status(path)[0]))
        say("report: asked for")

    monkeypatch.setattr(server.app, "write_apart", ask)
    return asked


def _context(out: Path, cohort: Path | str, **changes: Any) -> Context:
    places = {"cohort": str(cohort), "schema": "", "out": str(out), "resume": False, "enrolled": ""}
    run_config = {**places, **small_settings(rounds_fusion=1, wait_s=0.05).to_config(), **changes}
    return make_context(node_config={}, run_config=run_config)


def test_run_that_cannot_start_leaves_status_failed_with_the_reason(cohort: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(FakeGrid(), _context(tmp_path / "run", cohort))

    state, reason = read_status(tmp_path / "run")
    assert caught.value.code == 1
    assert state == "failed"
    assert reason.startswith("connecting: expected at least 3 hospitals within 0.05 s (min-sites), got 0.")
    assert reason in (tmp_path / "run" / "log.txt").read_text()
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("cohort_folder", "changes", "reason"),
    [
        ("", {}, "schema: expected the study's schema.toml, got none."),
        ("/nowhere", {}, "/nowhere/schema.toml: expected a readable UTF-8 file"),
        ("/nowhere", {"learning-rate": -1.0}, "learning-rate"),
        ("/nowhere", {"learning-speed": 1.0}, "learning-speed: unknown setting"),
        ("/nowhere", {"image-weights": "/nowhere.pt"}, "image-weights: expected a file, got none at /nowhere.pt"),
    ],
    ids=["no-schema", "no-cohort", "wrong-setting", "unknown-setting", "no-file"],
)
def test_mistake_in_the_run_config_is_told_in_the_status(
    tmp_path: Path, cohort_folder: str, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(SystemExit):
        main(FakeGrid(), _context(tmp_path / "run", cohort_folder, **changes))

    state, told = read_status(tmp_path / "run")
    assert state == "failed"
    assert reason in told


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"accept-red": "east, wset"}, "accept-red: expected names of hospitals (east, north, south, west), got wset."),
        ({"modalities": "static,films"}, "modalities: expected some of static, got films."),
        ({"strata": "male,agee_years:65"}, "strata: expected static columns of the study, got 'agee_years'."),
    ],
)
def test_setting_that_names_what_there_is_not_is_refused_before_any_patient_is_asked_for(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], reason: str
) -> None:
    link = RecordingLink(InProcessLink(open_workers(cohort, tmp_path / "cache")))
    monkeypatch.setattr(server.app, "FlowerLink", lambda _: link)

    with pytest.raises(SystemExit):
        main(FakeGrid(), _context(tmp_path / "run", cohort, **changes))

    state, told = read_status(tmp_path / "run")
    assert (state, told.startswith(reason)) == ("failed", True), told
    assert {kind for kind, *_ in link.questions} <= {HANDSHAKE}


def test_hospital_without_a_name_may_be_the_one_that_is_accepted(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = FaultyLink(InProcessLink(open_workers(cohort, tmp_path / "cache")), 3, FAULTS["deadline"], (HANDSHAKE,))
    monkeypatch.setattr(server.app, "FlowerLink", lambda _: link)

    main(FakeGrid(), _context(tmp_path / "run", cohort, **{"accept-red": "west"}))

    assert read_status(tmp_path / "run") == ("completed", "")


def test_run_folder_of_another_app_is_left_as_it_is(cohort: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.write_status("running", "the other's")

    with hold_lock(folder.path, APP_LOCK), pytest.raises(SystemExit) as caught:
        main(FakeGrid(), _context(folder.path, cohort, resume=True))

    assert caught.value.code == 1
    assert read_status(folder.path) == ("running", "the other's")


def test_unforeseen_error_is_raised_and_leaves_status_failed(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr(server.app, "run_study", fail)
    with pytest.raises(ZeroDivisionError):
        main(FakeGrid(), _context(tmp_path / "run", cohort))

    assert read_status(tmp_path / "run") == ("failed", "ZeroDivisionError: nobody thought of this")
    assert "Traceback" in (tmp_path / "run" / "log.txt").read_text()


def test_full_disk_is_told_with_what_to_do(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.app, "run_study", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        main(FakeGrid(), _context(tmp_path / "run", cohort))

    state, told = read_status(tmp_path / "run")
    assert state == "failed"
    assert (
        told == f"{tmp_path / 'run'}: expected room on its disk, got none left. Make room, then continue with --resume."
    )


def test_superlink_that_fails_is_told_with_what_to_do(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = httpx.Request("POST", "https://127.0.0.1/v1/runtime/push-messages")
    broken = httpx.HTTPStatusError("500", request=request, response=httpx.Response(500))
    monkeypatch.setattr(server.app, "run_study", Mock(side_effect=broken))
    with pytest.raises(httpx.HTTPStatusError):
        main(FakeGrid(), _context(tmp_path / "run", cohort))

    told = "SuperLink: expected an answer, got HTTP 500. Its disk may be full (see its log); mend that, then "
    assert read_status(tmp_path / "run") == ("failed", f"{told}continue with --resume.")


def test_leftovers_of_a_killed_app_are_removed(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.app, "run_study", Mock())
    left = tmp_path / "run" / "checkpoints" / ".progress.safetensors.ab_1.unfinished"
    left.parent.mkdir(parents=True)
    left.touch()

    main(FakeGrid(), _context(tmp_path / "run", cohort, resume=True))

    assert not left.exists()


def test_status_says_running_while_the_run_goes_on(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []
    monkeypatch.setattr(server.app, "run_study", lambda *_, **__: seen.append(read_status(tmp_path / "run")))

    main(FakeGrid(), _context(tmp_path / "run", cohort))

    assert seen == [("running", "")]
    assert read_status(tmp_path / "run") == ("completed", "")


def test_run_to_the_end_leaves_a_whole_run_folder(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.app, "FlowerLink", lambda _: InProcessLink(open_workers(cohort, tmp_path / "cache")))

    with hold_lock(tmp_path / "run", LAUNCHER_LOCK):  # as hipfed-sim does; another process in truth
        main(FakeGrid(), _context(tmp_path / "run", cohort))

    folder = tmp_path / "run"
    assert read_status(folder) == ("completed", "")
    for name in ("config.json", "metrics.json", "model.json", "model.safetensors", "rounds.jsonl", "log.txt"):
        assert (folder / name).stat().st_size > 0
    assert json.loads((folder / "config.json").read_text())["settings"]["rounds-fusion"] == 1


def test_report_is_asked_for_once_the_status_tells_the_end(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: list[tuple[Path, str]]
) -> None:
    monkeypatch.setattr(server.app, "run_study", Mock())
    main(FakeGrid(), _context(tmp_path / "good", cohort))
    monkeypatch.setattr(server.app, "run_study", Mock(side_effect=StudyError("no quorum")))
    with pytest.raises(SystemExit):
        main(FakeGrid(), _context(tmp_path / "bad", cohort))

    assert reported == [(tmp_path / "good", "completed"), (tmp_path / "bad", "failed")]
    assert "report: asked for" in (tmp_path / "good" / "log.txt").read_text()


def test_run_that_is_stopped_starts_no_report(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: list[tuple[Path, str]]
) -> None:
    monkeypatch.setattr(server.app, "run_study", Mock(side_effect=SystemExit(143)))

    with pytest.raises(SystemExit):
        main(FakeGrid(), _context(tmp_path / "run", cohort))

    assert read_status(tmp_path / "run")[0] == "failed"
    assert reported == []


@pytest.mark.parametrize("stopped", [SystemExit(0), SystemExit(143), KeyboardInterrupt()])
@pytest.mark.parametrize(("enrolled", "where"), [("7:east", "superlink.log"), ("", "flower.log")])
def test_app_that_flower_ends_says_so_in_one_line_without_a_traceback(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: BaseException, enrolled: str, where: str
) -> None:
    monkeypatch.setattr(server.app, "run_study", Mock(side_effect=stopped))

    with pytest.raises(type(stopped)) as caught:
        main(FakeGrid(), _context(tmp_path / "run", cohort, enrolled=enrolled))

    reason = (
        "Flower ended the app: the run or its SuperLink was stopped, or they lost touch "
        f"(see {where}); continue with --resume"
    )
    assert caught.value is stopped
    assert read_status(tmp_path / "run") == ("failed", reason)
    (line,) = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert line.endswith(f"ERROR the run failed: {reason}")


def test_report_of_an_earlier_attempt_does_not_stand_beside_a_run_that_goes_on(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "run" / REPORT
    report.parent.mkdir()
    report.write_text("old")
    seen: list[bool] = []
    monkeypatch.setattr(server.app, "run_study", lambda *_, **__: seen.append(report.exists()))

    main(FakeGrid(), _context(tmp_path / "run", cohort, resume=True))

    assert seen == [False]


def test_schema_may_lie_elsewhere_than_the_cohort(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(server.app, "run_study", lambda *_, **given: seen.append(given["schema"].study.name))
    (tmp_path / "study.toml").write_text((cohort / "schema.toml").read_text().replace('"small"', '"other"', 1))

    main(FakeGrid(), _context(tmp_path / "run", cohort, schema=str(tmp_path / "study.toml")))

    assert seen == ["other"]


def test_names_by_node_come_back_from_the_run_config() -> None:
    names = {2**63 + 5: "east", 7: "sint-jan"}

    assert parse_enrolled(format_enrolled(names)) == names
    assert parse_enrolled("") is None
