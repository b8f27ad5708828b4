from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

import client.commands.check
from client.cli import app
from tests.server.small_cohort import write_small_cohort

if TYPE_CHECKING:
    from tests.client.conftest import SmallHospital

COHORTS = Path(__file__).resolve().parents[2] / "../shared/data/cohorts"


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Result]:
    def run(*arguments: object) -> Result:
        words = ["check", *(str(argument) for argument in arguments), "--cache", str(tmp_path / "cache")]
        return CliRunner().invoke(app, words, env={"COLUMNS": "200"})

    return run


def test_check_summarises_a_hospital_that_is_fine(hospital: SmallHospital, check: Callable[..., Result]) -> None:
    result = check(hospital.folder)

    assert result.exit_code == 0, result.output
    assert "small: 4 patients, 1 events" in result.output
    assert "drugs (events): present for 3 of 4 patients, 1 events among them" in result.output
    assert "age [years]" in result.output
    assert "note: patients: columns not used: 'ward'" in result.output


def test_check_prints_every_problem_on_a_line_of_its_own(hospital: SmallHospital, check: Callable[..., Result]) -> None:
    hospital.edit("patients.csv", "P1,0,81", "P1,0,[red]old")
    hospital.edit("vitals.csv", "4.9,90", "4.9,900")

    result = check(hospital.folder)

    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0] == "small: 2 problems"
    assert lines[1].startswith("  patients.csv, row 2, age: not-a-number: expected a number, got '[red]old'.")
    assert lines[2].startswith("  vitals.csv, row 3, hr: out-of-range: expected 0 to 350, got '900'.")
    assert lines[-1] == "not fine"


def test_check_notes_a_table_without_rows(hospital: SmallHospital, check: Callable[..., Result]) -> None:
    hospital.write("vitals.csv", "patient_id,time,hr,spo2\n")

    result = check(hospital.folder)

    assert result.exit_code == 0
    assert "note: vitals.csv: a header and no rows" in result.output


def test_check_goes_through_every_hospital_of_a_cohort(
    tmp_path: Path, make_hospital: Callable[[Path], SmallHospital], check: Callable[..., Result]
) -> None:
    for name in ("east", "north", "west"):
        make_hospital(tmp_path / "cohort" / name)
    (tmp_path / "cohort" / "north" / "patients.csv").unlink()

    result = check(tmp_path / "cohort")

    assert result.exit_code == 1
    assert "east: 4 patients" in result.output
    assert "patients.csv: no-patients" in result.output
    assert "west: 4 patients" in result.output
    assert "2 of 3 hospitals fine" in result.output


def test_check_refuses_a_schema_that_differs_from_the_cohorts(
    hospital: SmallHospital, check: Callable[..., Result]
) -> None:
    own = hospital.folder / "schema.toml"
    (hospital.folder.parent / "schema.toml").write_text(own.read_text().replace("size = 48", "size = 64"))

    assert "schema-differs" in check(hospital.folder).output
    assert check(hospital.folder, "--schema", own).exit_code == 0


@pytest.mark.parametrize("content", [None, "not = [toml", "[study]\n"])
def test_check_explains_a_schema_that_is_missing_or_wrong(
    hospital: SmallHospital, check: Callable[..., Result], content: str | None
) -> None:
    (hospital.folder / "schema.toml").unlink()
    if content is not None:
        hospital.write("schema.toml", content)

    result = check(hospital.folder)

    assert result.exit_code == 1
    assert "schema" in result.output
    assert "Traceback" not in result.output


def test_check_is_a_usage_error_when_the_folder_is_not_there(tmp_path: Path, check: Callable[..., Result]) -> None:
    assert check(tmp_path / "none").exit_code == 2
    assert check().exit_code == 2


def test_check_stays_a_subcommand() -> None:
    result = CliRunner().invoke(app, ["--help"])

    assert result.exit_code == 0
    assert "check" in result.output


@pytest.mark.skipif(not COHORTS.is_dir(), reason="the real cohorts (../shared/data) are not here")
@pytest.mark.parametrize(("cohort", "n"), [("eicu_demo", 5), ("heart_disease", 4), ("hipstudy", 2)])
def test_check_passes_on_the_real_cohorts(cohort: str, n: int, check: Callable[..., Result]) -> None:
    result = check(COHORTS / cohort)

    assert result.exit_code == 0, result.output
    assert f"{n} of {n} hospitals fine" in result.output


def test_check_judges_quality_where_asked_and_says_what_is_red(tmp_path: Path, check: Callable[..., Result]) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=2, series=True)
    table = pd.read_csv(cohort / "north" / "vitals.csv")
    rows = [table.assign(time=table["time"] / 4 + 5 * k, hr=70.0) for k in range(3)]
    schema = (cohort / "schema.toml").read_text().replace("steps = 4", "steps = 8").replace("step = 5.0", "step = 2.5")
    (cohort / "schema.toml").write_text(schema)
    pd.concat(rows).to_csv(cohort / "north" / "vitals.csv", index=False)

    result = check(cohort, "--quality")

    assert result.exit_code == 1
    assert "data quality, judged alone: green" in result.output
    assert "data quality, judged alone: red" in result.output
    assert "red: flat-lines of vitals, hr 1 (limit 0.95): share of successive values that are equal" in result.output
    assert result.output.splitlines()[-1] == "1 of 2 hospitals fine"
    assert "data quality" not in check(cohort).output


def test_check_notes_pairs_that_go_together_without_a_grade(tmp_path: Path, check: Callable[..., Result]) -> None:
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=1)
    table = pd.read_csv(cohort / "east" / "patients.csv")
    table["age"] = 70 + 20 * table["male"]
    table.to_csv(cohort / "east" / "patients.csv", index=False)

    result = check(cohort / "east", "--quality")

    assert result.exit_code == 0
    assert "data quality, judged alone: green" in result.output
    assert "note: static: age ~ male have a correlation of 1 and split their attribution" in result.output


def test_folder_that_this_user_may_not_read_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(client.commands.check, "find_hospitals", refuse)

    done = CliRunner().invoke(app, ["check", str(tmp_path)])

    assert done.exit_code == 1
    assert done.stderr.startswith(f"hipfed-client: {tmp_path}: expected a place that this user may read")
    assert len(done.stderr.splitlines()) == 1


def test_check_keeps_nothing_of_a_patient(
    hospital: SmallHospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    for name in ("HOME", "XDG_CACHE_HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.delenv("HIPFED_CACHE", raising=False)

    result = CliRunner().invoke(app, ["check", str(hospital.folder)])

    assert result.exit_code == 0, result.output
    assert list((tmp_path / "home").iterdir()) == []


def test_check_judges_a_link_by_the_study_beside_it(
    hospital: SmallHospital, tmp_path: Path, check: Callable[..., Result]
) -> None:
    study = hospital.folder / "schema.toml"
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "link").symlink_to(hospital.folder)
    (tmp_path / "named" / "schema.toml").write_text(study.read_text().replace("[0, 350]", "[0, 89]"))
    (hospital.folder.parent / "schema.toml").write_text(study.read_text())
    study.unlink()

    assert check(hospital.folder).exit_code == 0
    result = check(tmp_path / "named" / "link")
    assert "link: 1 problem" in result.output
    assert "vitals.csv, row 3, hr: out-of-range: expected 0 to 89" in result.output


def test_check_refuses_a_study_that_differs_from_the_one_beside_the_link(
    hospital: SmallHospital, tmp_path: Path, check: Callable[..., Result]
) -> None:
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "link").symlink_to(hospital.folder)
    text = (hospital.folder / "schema.toml").read_text()
    (tmp_path / "named" / "schema.toml").write_text(text.replace("[0, 350]", "[0, 349]"))

    assert "schema-differs" in check(tmp_path / "named" / "link").output
    assert check(hospital.folder).exit_code == 0


def test_check_notes_a_range_far_wider_than_the_values(hospital: SmallHospital, check: Callable[..., Result]) -> None:
    hospital.edit("schema.toml", "range = [0, 350]", "range = [0, 1e6]")

    result = check(hospital.folder)

    assert result.exit_code == 0
    told = (
        "note: vitals, hr: range 0 to 1e+06 is 44,444 times as wide as the values (p5 61, p95 83.5). Check their unit"
    )
    assert told in result.output
