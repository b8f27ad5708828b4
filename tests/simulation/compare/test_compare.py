"""A whole comparison on a small cohort: three hospitals of 60 patients, static variables, vital signs, medications."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from server.dashboard.folder import list_runs
from server.run_folder.folder import RunFolder, read_status
from shared_model.errors import DataError, SettingsError, StudyError
from shared_model.evaluation.metrics import summarise
from shared_model.evaluation.score_quantities import unpack_scores
from shared_model.evaluation.score_sums import ScoreSums
from simulation.cli import app
from simulation.compare import running
from simulation.compare.arms import list_arms
from simulation.compare.predictions import mean_over_seeds, read_predictions, score
from simulation.compare.reference import summary_features
from simulation.compare.report import CAUTION
from simulation.compare.running import Plan, compare_cohort
from simulation.compare.tasks import do_task, list_tasks, open_sites
from simulation.run import run_cohort
from tests.server.small_cohort import run_small_study, small_settings, write_small_cohort
from tests.waiting import PATIENCE_S, wait_until

SETTINGS = {"rounds-unimodal": "1", "rounds-fusion": "2", "background-rows": "20", "device": "cpu"}
ARMS = ("pooled", "local", "held-out", "without", "regression", "boosting")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_cohort(tmp_path_factory.mktemp("compare") / "cohort", series=True)


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HIPFED_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def compared(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    plan = Plan(cohort, out, folds=3, seeds=2, arms=ARMS, assignments=SETTINGS)
    compare_cohort(plan, console=Console(file=io.StringIO()))
    return out


def _read(out: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(out / f"{name}.csv").set_index("arm" if name != "evidence" else "modality")


def test_every_patient_is_predicted_once_a_seed_by_every_arm(compared: Path, cohort: Path) -> None:
    everyone = sum(len(site.patients) for site in open_sites(cohort))
    for arm in ("federated", "pooled", "local", "held-out", "without-vitals", "regression", "boosting"):
        table = read_predictions(sorted((compared / "tasks" / arm).glob("*.csv")))
        assert len(table) == 2 * everyone == 360
        assert not table.duplicated(["site", "patient_id", "seed"]).any()
        assert table["logit"].nunique() > 100


def test_federated_arm_scores_as_the_run_does(compared: Path, cohort: Path, tmp_path: Path) -> None:
    sums = ScoreSums.zero()
    for fold in range(3):
        settings = small_settings(
            rounds_unimodal=1, rounds_fusion=2, fold=fold, folds=3, explain="modalities", strategy="newton", head="",
            adapt_penalty=True,
        )  # fmt: skip
        folder = run_small_study(cohort, tmp_path / f"run-{fold}", settings=settings)
        sums = sums + unpack_scores(RunFolder(folder.path).read_scores())

    table = read_predictions(sorted((compared / "tasks" / "federated").glob("seed-0-*.csv")))
    expected, found = summarise(sums), summarise(score(table))

    assert found.auc == pytest.approx(expected.auc, abs=1e-6)
    assert found.log_loss == pytest.approx(expected.log_loss, abs=1e-6)


def test_tables_hold_every_arm_with_intervals_and_what_it_cost(compared: Path) -> None:
    arms, differences = _read(compared, "arms"), _read(compared, "differences")
    assert set(arms.index) == {"federated"} | set(differences.index)
    assert (arms["auc_low"] < arms["auc"]).all()
    assert (arms["auc"] < arms["auc_high"]).all()
    assert arms.loc["federated", "models"] == 6  # three folds, two seeds
    assert arms.loc["held-out", "models"] == 6  # three hospitals, two seeds
    assert arms.loc["local", "models"] == 18
    assert arms.loc["federated", "rounds_per_model"] == 3
    assert (differences["low"] <= differences["difference"]).all()
    assert not any("verdict" in column for column in differences.columns)


def test_shares_stand_beside_what_leaving_a_modality_out_costs(compared: Path) -> None:
    evidence, shares = _read(compared, "evidence"), _read(compared, "shares")
    assert list(evidence.index) == ["static", "vitals", "drugs"]
    assert evidence["share_federated"].sum() == pytest.approx(1, abs=0.01)
    assert evidence["auc_lost_without"].notna().all()
    assert shares[shares.index == "without-vitals"]["modality"].tolist() == ["static", "drugs"]


def test_report_shows_the_noise_and_every_figure(compared: Path) -> None:
    text = (compared / "comparison.md").read_text()
    assert "180 patients, 54 events, 3 hospitals" in text
    assert "standard error of" in text
    assert CAUTION in text
    assert not any(claim in text for claim in ("verdict", "**", "no difference shown"))
    figures = sorted(path.name for path in (compared / "figures").iterdir())
    assert figures == ["auc.png", "calibration.png", "decision.png", "differences.png", "shares.png"]
    for name in figures:
        assert f"figures/{name}" in text
        assert np.asarray(Image.open(compared / "figures" / name).convert("L")).std() > 5


def test_finished_tasks_are_not_done_again_and_others_are(
    compared: Path, cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tasks_with(**changes: str) -> list[bool]:
        arms = [arm for arm in list_arms(open_sites(cohort)[0].schema, points=False) if arm.name == "regression"]
        tasks = list_tasks(
            arms, cohort=cohort, out=compared, folds=3, seeds=2, assignments={**SETTINGS, **changes}, points=""
        )
        return [task.is_done() for task in tasks]

    assert all(tasks_with())
    assert all(tasks_with(threads="2"))  # changes no result
    assert not any(tasks_with(**{"rounds-fusion": "3"}))
    monkeypatch.setattr(running, "ProcessPoolExecutor", None)  # nothing is left to do
    before = (compared / "arms.csv").read_bytes()
    plan = Plan(cohort, compared, folds=3, seeds=2, arms=ARMS, assignments=SETTINGS)
    compare_cohort(plan, console=Console(file=io.StringIO()))
    assert (compared / "arms.csv").read_bytes() == before
    assert read_status(compared) == ("completed", "")


def test_arm_that_cannot_be_trained_is_named_and_the_others_are_reported(cohort: Path, tmp_path: Path) -> None:
    """A wild learning rate is nothing to Newton's steps, and sends FedAvg's beyond all bounds."""
    wild = {**SETTINGS, "rounds-unimodal": "0", "learning-rate": "1e30"}
    console = Console(file=io.StringIO())
    plan = Plan(cohort, tmp_path / "out", folds=3, seeds=1, arms=("fedavg",), assignments=wild)
    with pytest.raises(StudyError, match="arms failed: fedavg"):
        compare_cohort(plan, console=console)
    assert read_status(tmp_path / "out")[0] == "failed"
    assert "arms failed: fedavg" in read_status(tmp_path / "out")[1]
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "**fedavg could not be trained**" in text
    assert "federated: hospitals together" in text


def test_hospital_that_cannot_train_alone_is_named(tmp_path: Path) -> None:
    cohort = write_small_cohort(tmp_path / "cohort")
    path = cohort / "south" / "patients.csv"
    table = pd.read_csv(path)
    table["died"] = [1 if i < 2 else 0 for i in range(len(table))]  # two deaths for three parts
    table.to_csv(path, index=False)
    arms = [arm for arm in list_arms(open_sites(cohort)[0].schema, points=False) if arm.name == "local"]
    (task, *_) = list_tasks(
        arms, cohort=cohort, out=tmp_path, folds=3, seeds=1, assignments={**SETTINGS, "fold": "2"}, points=""
    )
    assert do_task(task) == ""
    record = json.loads(task.record_path.read_text())
    predicted = set(pd.read_csv(task.predictions_path)["site"])
    assert predicted | set(record["untrained"]) == {"east", "north", "south"}
    assert not predicted & set(record["untrained"])


def test_mean_over_seeds_leaves_out_who_was_not_predicted_by_all() -> None:
    table = pd.DataFrame(
        {
            "site": ["a", "a", "a"],
            "patient_id": ["1", "1", "2"],
            "outcome": [0, 0, 1],
            "logit": [1.0, 3.0, 5.0],
            "seed": [0, 1, 0],
        }
    )
    assert mean_over_seeds(table).to_dict("records") == [{"site": "a", "patient_id": "1", "outcome": 0, "logit": 2.0}]


def test_reference_sees_every_column_and_absent_as_missing(cohort: Path) -> None:
    site = open_sites(cohort)[0]
    features = summary_features(site.patients, site.schema)
    assert features.shape == (60, 2 + 3 + 6 + 2)  # age and sex, three ASA classes, six summaries, two drugs
    np.testing.assert_array_equal(features[:, :2], site.patients.numbers)
    assert (features[:, 2:5].sum(axis=1) == 1).all()
    mean_rate = np.nanmean(site.patients.raw["vitals"][:, :, 0], axis=1)
    np.testing.assert_allclose(features[:, 5], mean_rate, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arms", "poled"], "Did you mean pooled?"),
        (["--set", "fold=1"], "a comparison decides this one itself"),
        (["--set", "no-such=1"], "no-such: unknown setting"),
        (["--group", "films"], "expected NAME=MODALITY,MODALITY, got 'films'"),
        (["--group", "films=hip"], "expected some of static, vitals, drugs, got hip"),
        (["--group", "federated=static"], "expected a new name of small letters, digits and hyphens"),
        (["--group", "../evil=static"], "expected a new name of small letters, digits and hyphens"),
        (["--group", "a=static", "--group", "a=vitals"], "expected each name once, got it twice"),
        (["--points", "none.toml"], "points score at none.toml: expected a TOML file"),
        (["--set", "min-sites=4"], "expected at least 4 hospital folders (min-sites), got 3"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_work(
    arguments: list[str], message: str, cohort: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = CliRunner().invoke(app, ["compare", "--cohort", str(cohort), "--out", str(out), *arguments])
    assert found.exit_code == 1
    assert message in " ".join(found.output.split())
    assert not (out / "comparison.md").exists()


def test_plan_refuses_a_cohort_of_one_hospital(tmp_path: Path) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=1)
    plan = Plan(cohort, tmp_path / "out", assignments={"min-sites": "1"})
    with pytest.raises(SettingsError, match="expected at least 2 hospital folders"):
        compare_cohort(plan, console=Console(file=io.StringIO()))


def test_quick_takes_the_arms_that_a_study_of_one_modality_has(tmp_path: Path) -> None:
    cohort = write_small_cohort(tmp_path / "cohort")
    plan = Plan(cohort, tmp_path / "out", folds=3, seeds=1, quick=True, assignments=SETTINGS)

    compare_cohort(plan, console=Console(file=io.StringIO()))

    assert list(_read(tmp_path / "out", "arms").index) == ["federated", "pooled", "regression"]
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "Settings of all arms: `background-rows=20`, `device=cpu`, `rounds-fusion=2`, `rounds-unimodal=1`." in text


def _press_ctrl_c(pid: int) -> None:
    os.killpg(pid, signal.SIGINT)


def _terminate(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)


def _kill_what_trains(pid: int) -> None:
    """As the system does where memory is short."""
    for child in psutil.Process(pid).children():
        if "spawn_main" in " ".join(child.cmdline()):
            child.kill()


def _kill_itself(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def start(cohort: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a comparison of two arms in a process of its own, which says what it does in a log."""
    command = [sys.executable, "-c", "from simulation.cli import app; app()", "compare", "--cohort", str(cohort)]
    command += ["--out", str(tmp_path / "out"), "--arms", "pooled,local", "--folds", "3", "--workers", "1"]
    command += [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    started = []

    def run(*, seeds: int) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "--seeds", str(seeds)], stdout=log, stderr=log, start_new_session=True, env=environment
            )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def _count(folder: Path) -> int:
    return len(list((folder / "out").glob("tasks/*/*.json")))


@pytest.mark.parametrize(
    ("interrupt", "code", "state", "reason"),
    [
        (_press_ctrl_c, 130, "interrupted", "the same command goes on"),
        (_terminate, 143, "interrupted", "the same command goes on"),
        (_kill_itself, -9, "interrupted", "hipfed-sim was killed; the same command goes on"),
        (_kill_what_trains, 1, "failed", "models: expected processes that train to the end, got one that was ended"),
    ],
)
def test_interrupted_comparison_trains_no_more_and_says_so(
    interrupt: Callable[[int], None],
    code: int,
    state: str,
    reason: str,
    start: Callable[..., subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    process = start(seeds=4)
    wait_until(lambda: bool(_count(tmp_path)) or process.poll() is not None)
    assert process.poll() is None, (tmp_path / "log").read_text()
    assert read_status(tmp_path / "out") == ("running", "")
    training = psutil.Process(process.pid).children(recursive=True)
    interrupt(process.pid)
    status = process.wait(PATIENCE_S)

    assert status == code
    wait_until(lambda: read_status(tmp_path / "out")[0] != "running")
    told = read_status(tmp_path / "out")
    assert told[0] == state
    assert told[1].startswith(reason)
    assert _count(tmp_path) <= 5
    wait_until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in training))
    assert not list(tmp_path.glob("hipfed-*"))
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_killed_comparison_goes_on_with_the_same_command(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    process = start(seeds=1)
    wait_until(lambda: bool(_count(tmp_path)) or process.poll() is not None)
    process.kill()
    process.wait()
    wait_until(lambda: read_status(tmp_path / "out")[0] == "interrupted")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("tasks/*/*.json")}

    assert start(seeds=1).wait(PATIENCE_S) == 0

    assert read_status(tmp_path / "out") == ("completed", "")
    assert kept
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert "of 9 models are there already" in (tmp_path / "log").read_text()


def test_comparison_whose_patients_cannot_be_read_has_failed(tmp_path: Path) -> None:
    cohort = write_small_cohort(tmp_path / "cohort")
    (cohort / "south" / "patients.csv").write_text("patient_id\n")
    with pytest.raises(DataError) as caught:
        compare_cohort(Plan(cohort, tmp_path / "out", assignments=SETTINGS), console=Console(file=io.StringIO()))

    assert read_status(tmp_path / "out") == ("failed", str(caught.value))


def test_folder_of_a_run_is_not_touched_by_a_comparison(cohort: Path, tmp_path: Path) -> None:
    RunFolder(tmp_path).write_status("completed")

    with pytest.raises(SettingsError, match="expected a new folder or a comparison's, got a run's"):
        compare_cohort(Plan(cohort, tmp_path, assignments=SETTINGS), console=Console(file=io.StringIO()))

    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_folder_of_a_comparison_is_no_run_to_go_on_with(compared: Path, cohort: Path) -> None:
    with pytest.raises(SettingsError, match="expected a run folder, got a comparison's"):
        run_cohort(cohort, compared, assignments={}, resume=True, console=Console(file=io.StringIO()))


def test_comparison_is_no_run_of_the_dashboard(compared: Path) -> None:
    assert compared.name not in list_runs(compared.parent)
