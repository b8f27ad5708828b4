from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from client.cli import app
from server.cli import app as server_app
from shared_model.config import parse_settings
from shared_model.privacy.second_moments import count_columns
from shared_model.protocol.study_hash import StudyFile, read_study
from tests.conftest import SMALL_STUDY


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir(mode=0o700)
    return tmp_path / "home"


@pytest.fixture
def study_path(tmp_path: Path) -> Path:
    """As the coordinator writes it."""
    (tmp_path / "schema.toml").write_text(SMALL_STUDY)
    out = tmp_path / "STUDY.json"
    options = ["--schema", str(tmp_path / "schema.toml"), "--out", str(out)]
    done = CliRunner().invoke(server_app, ["study", *options, "--set", "rounds-fusion=3", "--set", "min-sites=2"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0] == f"study {read_study(out).sha256}"
    least = 2 * count_columns(read_study(out).study, parse_settings({}))
    assert f"Hospitals with fewer than {least} training patients" in done.output
    return out


def test_study_with_secure_sums_is_not_written_for_a_deployment(study_path: Path) -> None:
    options = ["--schema", str(study_path.parent / "schema.toml"), "--out", str(study_path.parent / "other.json")]
    done = CliRunner().invoke(server_app, ["study", *options, "--set", "secure-sum=true"])

    assert done.exit_code == 1
    assert "secure-sum: expected false in a deployment" in done.output
    assert not (study_path.parent / "other.json").exists()


def _approve(home: Path, *words: object, says: str = "") -> Result:
    return CliRunner().invoke(app, ["approve", "--home", str(home), *map(str, words)], input=says)


def _listed(home: Path) -> str:
    done = _approve(home, "--list")
    assert done.exit_code == 0
    return done.output


def test_hospital_sees_the_study_and_approves_it(home: Path, study_path: Path) -> None:
    study = read_study(study_path)

    done = _approve(home, study_path, says="y\n")

    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert "small: A small study" in lines
    assert "  outcome: died" in lines
    assert "  static: age, male, asa (1, 2, 3)" in lines
    assert "  series vitals: hr, spo2; 4 steps of 5 min" in lines
    assert "  events drugs: dose of opioid, insulin" in lines
    assert "  images hip: 33 x 33 pixels" in lines
    assert f"study {study.sha256}" in lines
    assert lines[-1].endswith(f"approved: study {study.sha256}")
    first, second = lines.index("settings that differ from the defaults: 2"), lines.index("  rounds-fusion = 3")
    assert first < second < lines.index("  seed = 0")
    for key in study.settings:
        assert any(line.startswith(f"  {key} = ") for line in lines)
    assert _listed(home).startswith(f"{study.sha256[:12]}  small  hipfed ")
    assert "rounds-fusion=3, min-sites=2" in _listed(home)


@pytest.mark.parametrize("says", ["n\n", "\n", ""])
def test_nothing_is_approved_without_a_yes(home: Path, study_path: Path, says: str) -> None:
    assert _approve(home, study_path, says=says).exit_code == 1
    assert _listed(home) == "no study is approved\n"


def test_script_approves_by_naming_the_hash(home: Path, study_path: Path) -> None:
    sha256 = read_study(study_path).sha256

    for wrong in ("", "f" * 64, sha256[:12]):
        done = _approve(home, study_path, "--yes", wrong)
        assert done.exit_code == 1
        assert f"expected the study's hash {sha256}" in done.output
    assert _listed(home) == "no study is approved\n"

    assert _approve(home, study_path, "--yes", sha256).exit_code == 0
    assert "was approved before" in _approve(home, study_path, "--yes", sha256).output


def test_approval_is_withdrawn(home: Path, study_path: Path) -> None:
    sha256 = read_study(study_path).sha256
    _approve(home, study_path, "--yes", sha256)

    done = _approve(home, "--withdraw", sha256[:12])

    assert done.exit_code == 0
    assert done.output == f"withdrawn: study {sha256[:12]}\n"
    assert _listed(home) == "no study is approved\n"


@pytest.mark.parametrize("words", [(), ("--list", "--withdraw", "x")])
def test_command_wants_one_thing_to_do(home: Path, words: tuple[str, ...]) -> None:
    done = _approve(home, *words)

    assert done.exit_code == 1
    assert "expected one of STUDY.json, --list and --withdraw HASH" in done.output


def test_edited_file_is_refused(home: Path, study_path: Path) -> None:
    study_path.write_text(study_path.read_text().replace('"rounds-fusion": 3', '"rounds-fusion": 4'))

    done = _approve(home, study_path, says="y\n")

    assert done.exit_code == 1
    assert "The file was changed by hand" in done.output
    assert "Traceback" not in done.output


def test_home_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = _approve(tmp_path / "nowhere", "--list")

    assert done.exit_code == 1
    assert "expected the folder of `hipfed-client keygen`, got none" in done.output


def test_coordinator_cannot_write_a_study_whose_settings_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_text(SMALL_STUDY)
    options = ["--schema", str(tmp_path / "schema.toml"), "--out", str(tmp_path / "STUDY.json")]

    for setting, reason in (("modalities=genome", "genome"), ("strata=blood", "blood"), ("seed=-1", "seed")):
        done = CliRunner().invoke(server_app, ["study", *options, "--set", setting])
        assert done.exit_code == 1
        assert reason in done.output
    assert not (tmp_path / "STUDY.json").exists()


def test_each_fold_is_a_study_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "schema.toml").write_text(SMALL_STUDY)
    files: list[StudyFile] = []
    for fold in range(2):
        out = tmp_path / f"fold-{fold}.json"
        words = ["study", "--schema", str(tmp_path / "schema.toml"), "--out", str(out), "--set", f"fold={fold}"]
        assert CliRunner().invoke(server_app, words).exit_code == 0
        files.append(read_study(out))

    assert files[0].sha256 != files[1].sha256


def test_hospital_is_told_in_plain_words_what_the_coordinator_could_compute(home: Path, study_path: Path) -> None:
    usual = " ".join(_approve(home, study_path, says="n\n").output.split())
    columns = count_columns(read_study(study_path).study, parse_settings({}))
    assert (
        f"patients from sums: the model has {columns} columns. With fewer than {2 * columns} training patients" in usual
    )
    assert "this hospital is left out of the study" in usual

    trusting = study_path.with_name("TRUSTING.json")
    words = ["--schema", str(study_path.with_name("schema.toml")), "--set", "trust-coordinator=true"]
    assert CliRunner().invoke(server_app, ["study", "--out", str(trusting), *words]).exit_code == 0
    told = " ".join(_approve(home, trusting, says="n\n").output.split())
    assert "trust-coordinator = True: THE COORDINATOR CAN COMPUTE PATIENTS." in told
    assert "each one's row, as exactly as the model sees it, and the outcome" in told

    words = [*words[:2], "--set", "strategy=fedavg", "--set", "explain=none"]
    assert CliRunner().invoke(server_app, ["study", "--out", str(trusting.with_name("NO.json")), *words]).exit_code == 0
    none = " ".join(_approve(home, trusting.with_name("NO.json"), says="n\n").output.split())
    assert "no question of this study asks for products of columns" in none
