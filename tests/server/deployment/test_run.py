"""`hipfed-server run` up to the moment when Flower takes over; whole runs are in tests/end_to_end."""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import server.deployment.run
import server.flower.submission
from server.deployment.run import run_deployed, wait_for_hospitals
from server.enrolment.coordinator_home import CoordinatorHome
from server.flower.submission import FlowerFolders
from server.run_folder.folder import RunFolder, read_status
from server.run_folder.lock import APP_LOCK
from shared_model.config import Scalar, parse_settings
from shared_model.errors import SettingsError, StudyError, StudyFileError
from shared_model.process.folder_lock import hold_lock
from shared_model.process.supervision import LOCK, STATUS
from shared_model.protocol.messages import PROTOCOL_VERSION
from shared_model.protocol.study_hash import StudyFile
from shared_model.schema import parse_schema
from tests.server.coordinator_home import make_home, revoke
from tests.server.small_cohort import STATIC_SCHEMA

NAMES = ("east", "north", "south")


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorHome:
    return make_home(tmp_path / "home", NAMES)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "STUDY.json")


def write_study(path: Path, **settings: Scalar) -> Path:
    schema = parse_schema(STATIC_SCHEMA, source="schema.toml")
    path.write_text(StudyFile.of(schema, parse_settings(settings), protocol=PROTOCOL_VERSION).to_json())
    return path


def _connect(home: CoordinatorHome, *names: str) -> None:
    home.processes.mkdir(exist_ok=True)
    now = datetime.now(UTC).isoformat()
    home.seen.write_text(json.dumps({name: {"last": now, "left": False} for name in names}))


def _serve(home: CoordinatorHome) -> None:
    home.processes.mkdir(exist_ok=True)
    now = datetime.now(UTC).isoformat()
    content = {
        "pid": os.getpid(),
        "token": "t",
        "started": now,
        "updated": now,
        "ready": True,
        "line": "up",
        "parts": [],
    }
    (home.processes / STATUS).write_text(json.dumps(content))


def test_waiting_ends_when_enough_hospitals_are_connected(home: CoordinatorHome) -> None:
    _connect(home, *NAMES)

    assert wait_for_hospitals(home, parse_settings({}), before=frozenset(), say=print) == list(NAMES)


def test_waiting_says_who_is_missing_and_fails_after_its_time(home: CoordinatorHome) -> None:
    _connect(home, "north")
    said: list[object] = []

    with pytest.raises(StudyError, match=r"expected at least 3 hospitals .*, got 1; missing: east, south\."):
        wait_for_hospitals(home, parse_settings({"wait-s": 0.5}), before=frozenset(), say=said.append)

    assert said == ["waiting for hospitals: 1 connected; missing: east, south"]


def test_revoked_hospital_is_not_waited_for(home: CoordinatorHome) -> None:
    _connect(home, *NAMES)
    revoke(home.folder, "north")

    with pytest.raises(StudyError, match="got 2; missing: none that is enrolled"):
        wait_for_hospitals(home, parse_settings({"wait-s": 0.1}), before=frozenset(), say=print)


def test_fewer_than_expected_are_enough_after_the_wait_if_min_sites_are_there(home: CoordinatorHome) -> None:
    _connect(home, "east", "north")
    settings = parse_settings({"wait-s": 0.1, "min-sites": 2, "expected-sites": 3})

    said: list[object] = []

    assert wait_for_hospitals(home, settings, before=frozenset(), say=said.append) == ["east", "north"]
    assert said[-1] == "going on without south: not connected within 0.1 s (wait-s)"


def test_run_waits_for_all_that_are_enrolled_unless_it_expects_fewer(home: CoordinatorHome) -> None:
    _connect(home, "east", "north")
    few: dict[str, Scalar] = {"wait-s": 0.5, "min-sites": 2}
    said: list[object] = []

    assert wait_for_hospitals(home, parse_settings(few), before=frozenset(), say=said.append) == ["east", "north"]
    assert said == [
        "waiting for hospitals: 2 connected; missing: south",
        "going on without south: not connected within 0.5 s (wait-s)",
    ]

    said.clear()
    wait_for_hospitals(home, parse_settings({**few, "expected-sites": 2}), before=frozenset(), say=said.append)
    assert said == []


def test_run_that_goes_on_waits_for_those_that_took_part_and_for_no_others(home: CoordinatorHome) -> None:
    _connect(home, "east", "north")
    settings = parse_settings({"wait-s": 0.5, "min-sites": 1, "expected-sites": 1})
    said: list[object] = []

    wait_for_hospitals(home, settings, before=frozenset({"east", "north"}), say=said.append)
    assert said == []
    wait_for_hospitals(home, settings, before=frozenset({"east", "south"}), say=said.append)
    assert said[-1] == "going on without south: not connected within 0.5 s (wait-s)"


def test_run_is_refused_where_the_coordinator_does_not_run(home: CoordinatorHome, study: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="expected it to run, got nothing"):
        run_deployed(home, study, tmp_path / "run", resume=False, console=Console(file=StringIO()))

    assert not (tmp_path / "run").exists()


Submitted = list[Sequence[str]]


@pytest.fixture
def run(
    home: CoordinatorHome, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Submitted]:
    """Runs a study of three connected hospitals whose Flower says how it ended."""
    _connect(home, *NAMES)
    _serve(home)

    def run(end: Callable[[RunFolder], str], **options: Any) -> Submitted:
        submitted: Submitted = []

        def follow(submit: Sequence[str], *_: object, **__: object) -> str:
            submitted.append(submit)
            return end(RunFolder(tmp_path / "run"))

        monkeypatch.setattr(server.deployment.run, "follow", follow)
        nodes = options.pop("nodes", dict(enumerate(NAMES, start=7)))
        monkeypatch.setattr(server.deployment.run, "enrolled_nodes", lambda *_, **__: nodes)
        with hold_lock(home.processes, LOCK):
            run_deployed(
                home,
                options.pop("study", study),
                tmp_path / "run",
                resume=options.pop("resume", False),
                console=Console(file=StringIO(), width=200),
            )
        return submitted

    return run


def _complete(folder: RunFolder) -> str:
    schema = parse_schema(STATIC_SCHEMA, source="schema.toml")
    folder.write_json("config.json", {"settings": parse_settings({}).to_config(), "schema_sha256": schema.sha256})
    folder.write_status("completed")
    return "finished:completed"


def test_run_is_refused_where_flower_knows_too_few_of_those_connected(run: Callable[..., Submitted]) -> None:
    with pytest.raises(
        StudyError, match=r"expected Flower to know at least 3 of east, north, south .*, got east, north\."
    ):
        run(_complete, nodes={7: "east", 8: "north", 12: "elsewhere"})


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"accept-red": "wset"}, r"accept-red: expected names of hospitals \(east, north, south\), got wset"),
        ({"server-tau": 0.5}, "server-tau: expected strategy=fedadam or fedyogi, got strategy=newton"),
    ],
)
def test_run_refuses_settings_that_would_do_nothing_and_goes_on_with_those_it_has(
    run: Callable[..., Submitted], tmp_path: Path, settings: dict[str, Scalar], reason: str
) -> None:
    study = write_study(tmp_path / "idle.json", **settings)
    with pytest.raises(SettingsError, match=reason):
        run(_complete, study=study)

    (tmp_path / "run").mkdir()
    assert run(_complete, study=study, resume=True)  # a run that a former version began


def test_run_hands_flower_the_study_the_folder_and_all_settings(run: Callable[..., Submitted], tmp_path: Path) -> None:
    study = write_study(tmp_path / "second.json", fold=2)
    ((*command, options),) = run(_complete, study=study)

    assert command[:2] == ["flwr", "run"]
    written = Path(options).read_text()
    places = (
        f'schema = "{study}"',
        f'out = "{tmp_path / "run"}"',
        "resume = false",
        'enrolled = "7:east,8:north,9:south"',
    )
    for line in (*places, "fold = 2", "min-sites = 3"):
        assert line in written.splitlines()


def test_run_that_flower_calls_failed_is_a_failure(run: Callable[..., Submitted], tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="Flower says finished:failed"):
        run(lambda _: "finished:failed")

    assert read_status(tmp_path / "run")[0] == "failed"


def test_run_whose_superlink_was_killed_is_told_alike_in_status_log_and_message(
    run: Callable[..., Submitted], home: CoordinatorHome, tmp_path: Path
) -> None:
    with pytest.raises(StudyError) as caught:
        run(lambda _: "unknown")

    reason = (
        "the SuperLink can no longer be asked how the run ended: it may have ended, or been started anew. "
        f"See `hipfed-server status --home {home.folder}`; continue with --resume."
    )
    assert str(caught.value) == reason
    assert read_status(tmp_path / "run") == ("failed", reason)
    assert (tmp_path / "run" / "log.txt").read_text().endswith(f" ERROR the run failed: {reason}\n")


def test_study_of_another_protocol_is_refused(run: Callable[..., Submitted], study: Path) -> None:
    schema, protocol = parse_schema(STATIC_SCHEMA, source="schema.toml"), PROTOCOL_VERSION + 1
    study.write_text(StudyFile.of(schema, parse_settings({}), protocol=protocol).to_json())

    with pytest.raises(StudyFileError, match=f"got one for protocol {protocol} of hipfed"):
        run(_complete)


def test_study_that_was_changed_by_hand_is_refused(run: Callable[..., Submitted], study: Path) -> None:
    study.write_text(study.read_text().replace('"fold": 0', '"fold": 1'))

    with pytest.raises(StudyFileError, match="changed by hand"):
        run(_complete)


def test_finished_run_is_not_run_again(run: Callable[..., Submitted]) -> None:
    assert len(run(_complete)) == 1

    assert run(_complete, resume=True) == []


def test_folder_of_another_run_is_not_touched(run: Callable[..., Submitted], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").touch()

    with pytest.raises(SettingsError, match="expected a new or empty folder"):
        run(_complete)


def test_interrupted_run_says_how_to_go_on(run: Callable[..., Submitted], tmp_path: Path) -> None:
    def interrupt(_: RunFolder) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupt)

    assert read_status(tmp_path / "run") == ("interrupted", "continue with --resume")


def test_stop_waits_for_the_app_to_let_go_of_the_folder(
    home: CoordinatorHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[Sequence[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command))
    monkeypatch.setattr(server.flower.submission, "APP_END_S", 0.1)
    with (tmp_path / "log").open("wb") as log:
        place = FlowerFolders(home.flower, {}, log, lambda _: None)
        server.deployment.run._stop_run(place, tmp_path, "77")
        with hold_lock(tmp_path, APP_LOCK), pytest.raises(StudyError, match="still at work"):
            server.deployment.run._stop_run(place, tmp_path, "77")

    assert commands == [["flwr", "stop", "77", "hipfed"]] * 2
