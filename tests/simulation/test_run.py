"""`hipfed-sim run` around a Flower that is replaced by the same protocol in this process."""

import json
import os
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import simulation.run
from server.flower.run_config import PLACES
from server.run_folder.folder import RunFolder, read_status
from server.run_folder.lock import LAUNCHER_LOCK, LOCKS
from server.study import run_study
from shared_model.config import parse_settings
from shared_model.errors import LockedError, SchemaError, SettingsError, StudyError
from shared_model.privacy.suppression import suppressed_row
from shared_model.process.folder_lock import hold_lock
from shared_model.schema import load_schema
from simulation.flower.engine import LONGEST_TEMPORARY_FOLDER, check_temporary_folder
from simulation.in_process import InProcessLink
from simulation.run import run_cohort
from tests.server.small_cohort import open_workers, write_small_cohort

ASSIGNMENTS = {"rounds-unimodal": "0", "rounds-fusion": "1", "rounds-joint": "0", "device": "cpu"}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_cohort(tmp_path_factory.mktemp("run") / "cohort")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The run configs that reached Flower; each is run, in this process, as the ServerApp would."""
    submitted: list[dict[str, Any]] = []

    def run_here(
        *,
        folder: RunFolder,
        run_config: Mapping[str, Any],
        n_sites: int,
        watch: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        assert callable(say)
        submitted.append({**run_config, "n_sites": n_sites})
        settings = parse_settings({key: value for key, value in run_config.items() if key not in PLACES})
        schema = load_schema(Path(run_config["cohort"]) / "schema.toml")
        link = InProcessLink(open_workers(Path(run_config["cohort"]), tmp_path / "cache"))
        run_study(link, schema=schema, settings=settings, folder=folder, resume=bool(run_config["resume"]))
        folder.write_status("completed")
        watch()

    monkeypatch.setattr(simulation.run, "run_on_flower", run_here)
    return submitted


def _run(cohort: Path, out: Path, *, resume: bool = False, **changes: str) -> str:
    screen = StringIO()
    assignments = {**ASSIGNMENTS, **{key.replace("_", "-"): value for key, value in changes.items()}}
    run_cohort(cohort, out, assignments=assignments, resume=resume, console=Console(file=screen, width=200))
    return screen.getvalue()


def test_run_refuses_a_cohort_with_too_few_hospitals_before_it_starts(
    cohort: Path, tmp_path: Path, runs: list[dict[str, Any]]
) -> None:
    with pytest.raises(SettingsError, match=r"expected at least 4 hospital folders \(min-sites\), got 3"):
        _run(cohort, tmp_path / "out", min_sites="4")

    assert (runs, (tmp_path / "out").exists()) == ([], False)


def test_run_refuses_a_folder_without_hospitals(tmp_path: Path, runs: list[dict[str, Any]]) -> None:
    cohort = write_small_cohort(tmp_path / "none", hospitals=0)

    with pytest.raises(SettingsError, match="expected one folder a hospital, got none"):
        _run(cohort, tmp_path / "out")

    assert runs == []


def test_run_refuses_a_cohort_without_a_schema(tmp_path: Path, runs: list[dict[str, Any]]) -> None:
    with pytest.raises(SchemaError):
        _run(tmp_path, tmp_path / "out")

    assert runs == []


@pytest.mark.parametrize("changes", [{"fold": "5"}, {"learning_rate": "fast"}, {"learning_speed": "1"}])
def test_run_refuses_wrong_settings_before_it_starts(
    cohort: Path, tmp_path: Path, runs: list[dict[str, Any]], changes: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError):
        _run(cohort, tmp_path / "out", **changes)

    assert runs == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"modalities": "static,ct"}, "modalities: expected some of static, got ct"),
        ({"local_norm": "true"}, "local-norm: expected a study with images"),
        ({"image_weights": "{here}"}, "image-weights: expected a study with images"),
        ({"image_weights": "none.pth"}, "image-weights: expected a file, got none at {cwd}/none.pth"),
        ({"strata": "ward"}, "strata: "),
        ({"proximal_mu": "0.5"}, "proximal-mu: expected strategy=fedprox, got strategy=newton"),
        ({"accept_red": "wset"}, "accept-red: expected names of hospitals (east, north, south), got wset"),
    ],
)
def test_run_refuses_settings_that_do_not_fit_the_study_before_anything_is_written(
    cohort: Path, tmp_path: Path, runs: list[dict[str, Any]], changes: dict[str, str], reason: str
) -> None:
    given: dict[str, Any] = {key: value.format(here=__file__) for key, value in changes.items()}

    with pytest.raises(SettingsError) as refused:
        _run(cohort, tmp_path / "out", **given)

    assert str(refused.value).startswith(reason.format(cwd=Path.cwd()))
    assert runs == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("environment", "named"),
    [({"TMPDIR": "/t" * 40}, "TMPDIR"), ({"TMPDIR": "/t", "RAY_TMPDIR": "/t" * 40}, "RAY_TMPDIR")],
)
def test_run_refuses_a_temporary_folder_whose_path_is_too_long_for_sockets(
    cohort: Path,
    tmp_path: Path,
    runs: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    named: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError) as refused:
        _run(cohort, tmp_path / "out")

    limit = LONGEST_TEMPORARY_FOLDER
    assert str(refused.value).startswith(f"{named}: expected a path of at most {limit} bytes")
    assert "got 80: /t/t" in str(refused.value)
    assert runs == []
    assert not (tmp_path / "out").exists()


def test_run_takes_a_short_folder_for_sockets_beside_a_long_temporary_one() -> None:
    check_temporary_folder({"TMPDIR": "/t" * 40, "RAY_TMPDIR": "/" + "t" * (LONGEST_TEMPORARY_FOLDER - 1)})


@pytest.mark.parametrize("lock", LOCKS)
def test_run_leaves_a_folder_alone_on_which_another_process_works(
    cohort: Path, tmp_path: Path, runs: list[dict[str, Any]], lock: str
) -> None:
    RunFolder(tmp_path / "out").write_status("running", "the other's")

    with hold_lock(tmp_path / "out", lock), pytest.raises(LockedError, match=rf"out: in use by process {os.getpid()}"):
        _run(cohort, tmp_path / "out", resume=True)

    assert runs == []
    assert read_status(tmp_path / "out") == ("running", "the other's")


def test_run_holds_the_folder_of_every_fold_and_theirs_while_it_lasts(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    def look(*, folder: RunFolder, **_: object) -> None:
        for path in (folder.path.parent, folder.path):
            try:
                with hold_lock(path, LAUNCHER_LOCK):
                    pass
            except LockedError:
                refused.append(path.name)
        raise StudyError("enough seen")

    monkeypatch.setattr(simulation.run, "run_on_flower", look)
    with pytest.raises(StudyError, match="enough seen"):
        _run(cohort, tmp_path / "out", fold="1..2")

    assert refused == ["out", "fold-1"]


def test_folder_that_only_a_refused_run_has_locked_counts_as_empty(
    cohort: Path, tmp_path: Path, runs: list[dict[str, Any]]
) -> None:
    with hold_lock(tmp_path / "out", LAUNCHER_LOCK):
        pass

    _run(cohort, tmp_path / "out")

    assert len(runs) == 1


def test_run_never_writes_into_a_folder_that_holds_something(
    cohort: Path, tmp_path: Path, runs: list[dict[str, Any]]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")

    with pytest.raises(SettingsError, match="expected a new or empty folder, got one with files"):
        _run(cohort, tmp_path / "out")
    with pytest.raises(SettingsError, match="expected a folder, got a file"):
        _run(cohort, tmp_path / "file")
    with pytest.raises(SettingsError, match="expected a run folder, got none"):
        _run(cohort, tmp_path / "nothing", resume=True)

    assert runs == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_run_hands_flower_absolute_places_and_waits_for_every_hospital(
    cohort: Path, tmp_path: Path, runs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    _run(cohort, Path("out"))

    (config,) = runs
    assert (config["cohort"], config["out"]) == (str(cohort), str(tmp_path / "out"))
    assert (config["resume"], config["n_sites"], config["expected-sites"]) == (False, 3, 3)
    assert config["rounds-fusion"] == 1
    assert read_status(tmp_path / "out")[0] == "completed"


def test_run_waits_for_no_more_hospitals_than_were_asked_for(
    cohort: Path, tmp_path: Path, runs: list[dict[str, Any]]
) -> None:
    _run(cohort, tmp_path / "out", expected_sites="2", min_sites="2")

    assert runs[0]["expected-sites"] == 2


def test_run_shows_the_progress_of_each_phase(cohort: Path, tmp_path: Path, runs: list[dict[str, Any]]) -> None:
    screen = _run(cohort, tmp_path / "out", rounds_joint="1")

    assert "out fusion" in screen
    assert "out joint" in screen
    assert "3/3 hospitals, validation loss" in screen
    assert len(runs) == 1


def test_lines_count_the_hospitals_of_the_cohort_and_name_the_excluded_above(
    tmp_path: Path, runs: list[dict[str, Any]]
) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=4)
    (cohort / "north" / "patients.csv").unlink()

    screen = _run(cohort, tmp_path / "out")

    assert len(runs) == 1
    assert "3/4 hospitals, validation loss" in screen
    assert screen.index("excluded: north: data check failed: no-patients (1)") < screen.index("3/4 hospitals")


def test_image_weights_are_named_whatever_the_working_directory(
    tmp_path: Path, runs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", patients=20, images=True)
    (tmp_path / "weights.pth").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(simulation.run, "run_on_flower", lambda **given: runs.append(given["run_config"]))

    _run(cohort, tmp_path / "out", image_weights="weights.pth")

    assert runs[0]["image-weights"] == str(tmp_path / "weights.pth")


def test_range_of_folds_scores_every_patient_once(cohort: Path, tmp_path: Path, runs: list[dict[str, Any]]) -> None:
    _run(cohort, tmp_path / "out", folds="3", fold="0..2")

    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [config["fold"] for config in runs] == [0, 1, 2]
    assert metrics["folds"] == [0, 1, 2]
    assert (metrics["test"]["pooled"]["n"], metrics["test"]["pooled"]["events"]) == (180, 54)
    assert read_status(tmp_path / "out")[0] == "completed"
    assert metrics["test"]["sites"] == {}


def test_range_of_folds_resumes_where_it_stopped(
    cohort: Path, tmp_path: Path, runs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    _run(cohort, whole, fold="0..1")
    here: Callable[..., None] = vars(simulation.run)["run_on_flower"]

    def fail_in_fold_1(**given: Any) -> None:
        if given["run_config"]["fold"] == 1:
            raise StudyError("too few hospitals")
        here(**given)

    monkeypatch.setattr(simulation.run, "run_on_flower", fail_in_fold_1)
    with pytest.raises(StudyError):
        _run(cohort, tmp_path / "out", fold="0..1")
    assert not (tmp_path / "out" / "metrics.json").exists()
    monkeypatch.setattr(simulation.run, "run_on_flower", here)
    runs.clear()

    _run(cohort, tmp_path / "out", fold="0..1", resume=True)

    assert [config["fold"] for config in runs] == [1]
    assert (tmp_path / "out" / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()


def _change_test(fold: Path, **changes: object) -> None:
    metrics = RunFolder(fold).read_json("metrics.json")
    RunFolder(fold).write_json("metrics.json", {**metrics, "test": {**metrics["test"], **changes}})


def test_hospital_that_fails_in_a_fold_is_named_with_the_pooled_folds(
    cohort: Path, tmp_path: Path, runs: list[dict[str, Any]]
) -> None:
    _run(cohort, tmp_path / "out", folds="3", fold="0..1")
    _change_test(tmp_path / "out" / "fold-1", failed={"south": "no answer within 5 s"})

    _run(cohort, tmp_path / "out", folds="3", fold="0..1", resume=True)

    assert len(runs) == 2
    pooled = RunFolder(tmp_path / "out").read_json("metrics.json")
    assert pooled["test"]["failed"] == {"south": "fold 1: no answer within 5 s"}


def test_fold_that_may_not_be_told_is_not_given_back_by_the_pooled_ones(
    cohort: Path, tmp_path: Path, runs: list[dict[str, Any]]
) -> None:
    _run(cohort, tmp_path / "out", folds="3", fold="0..2")
    _change_test(tmp_path / "out" / "fold-1", pooled=suppressed_row())

    _run(cohort, tmp_path / "out", folds="3", fold="0..2", resume=True)

    assert len(runs) == 3
    pooled = RunFolder(tmp_path / "out").read_json("metrics.json")
    assert pooled["test"] == {"pooled": suppressed_row(), "sites": {}, "failed": {}}


def test_pooled_result_of_fewer_folds_is_gone_until_the_further_ones_have_finished(
    cohort: Path, tmp_path: Path, runs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    _run(cohort, out, folds="3", fold="0..1")
    before = (out / "metrics.json").read_bytes()

    def fail(**_: object) -> None:
        raise StudyError("too few hospitals")

    with monkeypatch.context() as patched:
        patched.setattr(simulation.run, "run_on_flower", fail)
        with pytest.raises(StudyError):
            _run(cohort, out, folds="3", fold="0..2", resume=True)
    assert [path.name for path in out.iterdir() if path.is_file() and not path.name.startswith(".")] == ["status.json"]
    assert read_status(out)[0] == "failed"

    _run(cohort, out, folds="3", fold="0..1", resume=True)

    assert (out / "metrics.json").read_bytes() == before
    assert read_status(out)[0] == "completed"
    assert len(runs) == 2


def test_range_of_folds_leaves_the_folder_of_a_single_run_alone(
    cohort: Path, tmp_path: Path, runs: list[dict[str, Any]]
) -> None:
    _run(cohort, tmp_path / "out", folds="3")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}

    with pytest.raises(SettingsError, match="expected the folder of a run of folds, got one of a single run"):
        _run(cohort, tmp_path / "out", folds="3", fold="0..1", resume=True)

    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()} == before
    assert len(runs) == 1


def test_resuming_a_finished_run_changes_nothing(cohort: Path, tmp_path: Path, runs: list[dict[str, Any]]) -> None:
    _run(cohort, tmp_path / "out")
    before = (tmp_path / "out" / "metrics.json").stat().st_mtime_ns

    _run(cohort, tmp_path / "out", resume=True)

    assert len(runs) == 1
    assert (tmp_path / "out" / "metrics.json").stat().st_mtime_ns == before
