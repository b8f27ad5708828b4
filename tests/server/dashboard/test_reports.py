"""The report behind a run's page: the run's own where it is whole and ours, else made anew when the run changes."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import server.dashboard.reports
from server.dashboard.folder import list_runs
from server.dashboard.reports import Reports
from server.report.page import render_report
from server.report.writing import write_report
from shared_model.errors import StudyError
from tests.server.dashboard.asking import Client
from tests.server.report.run_folders import change, write_run

Connect = Callable[..., Client]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders whose reports were made, in that order."""
    folders: list[Path] = []

    def render(path: Path) -> str:
        folders.append(path)
        return render_report(path)

    monkeypatch.setattr(server.dashboard.reports, "render_report", render)
    return folders


def read(reports: Reports, runs: Path, name: str = "plain") -> str:
    return reports.read(list_runs(runs)[name])


def test_report_is_made_once_while_nothing_changes(runs: Path, made: list[Path]) -> None:
    reports = Reports()
    assert read(reports, runs) == read(reports, runs)
    assert made == [runs / "plain"]


@pytest.mark.parametrize(
    "name", ["status.json", "config.json", "quality.json", "metrics.json", "explanations.json", "model.json"]
)
def test_report_is_made_anew_when_a_file_of_the_run_changes(runs: Path, made: list[Path], name: str) -> None:
    reports = Reports()
    read(reports, runs)
    change(runs / "plain", name, unknown_key=1)
    read(reports, runs)
    assert len(made) == 2


def test_report_shows_a_round_that_was_added(runs: Path) -> None:
    reports, file = Reports(), runs / "plain" / "rounds.jsonl"
    before = read(reports, runs)
    last = json.loads(file.read_text(encoding="utf-8").splitlines()[-1])
    with file.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({**last, "val_loss": 0.123456}) + "\n")
    assert "0.1235" not in before
    assert "0.1235" in read(reports, runs)


def test_report_of_pooled_folds_is_made_anew_when_a_fold_changes(runs: Path) -> None:
    pooled = write_run(runs / "pooled")
    for name in ("config.json", "rounds.jsonl"):
        (pooled / name).unlink()
    change(pooled, "metrics.json", folds=[0, 1])
    for fold in (0, 1):
        write_run(pooled / f"fold-{fold}", title="The first title")
    reports = Reports()
    assert "The first title" in read(reports, runs, "pooled")
    write_run(pooled / "fold-0", title="The second title")
    assert "The second title" in read(reports, runs, "pooled")


def test_reports_of_few_runs_are_kept(runs: Path, made: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.dashboard.reports, "_MOST_KEPT", 1)
    write_run(runs / "other")
    reports = Reports()
    for name in ("plain", "other", "other", "plain"):
        read(reports, runs, name)
    assert [path.name for path in made] == ["plain", "other", "plain"]


def test_report_that_the_run_wrote_is_given_as_it_is(runs: Path, made: list[Path]) -> None:
    file = write_report(runs / "plain")
    assert read(Reports(), runs) == file.read_text(encoding="utf-8")
    assert made == []


def test_report_from_before_the_end_of_the_run_is_not_given(runs: Path, made: list[Path]) -> None:
    file = write_report(runs / "plain")
    earlier = (runs / "plain" / "status.json").stat().st_mtime - 60
    os.utime(file, (earlier, earlier))
    read(Reports(), runs)
    assert made == [runs / "plain"]


def test_report_with_other_scripts_than_ours_is_not_given(runs: Path) -> None:
    (runs / "plain" / "report.html").write_text("<script>window.harmed = 1</script>", encoding="utf-8")
    assert "window.harmed" not in read(Reports(), runs)


def test_linked_file_of_a_fold_is_refused(runs: Path) -> None:
    fold = write_run(runs / "pooled" / "fold-0")
    (fold / "config.json").rename(runs / "elsewhere.json")
    (fold / "config.json").symlink_to(runs / "elsewhere.json")
    with pytest.raises(StudyError, match="got a link"):
        read(Reports(), runs, "pooled")


@pytest.mark.parametrize("content", ["{", '{"test": {"pooled": 3}}', "[]"])
def test_report_that_cannot_be_made_says_so_with_status_500(connect: Connect, runs: Path, content: str) -> None:
    (runs / "plain" / "metrics.json").write_text(content, encoding="utf-8")
    answer = connect().get("/report/plain")
    assert answer.status_code == 500
    assert "The report of this run cannot be shown" in answer.text
    assert "metrics.json: expected" in answer.text
    assert "script-src" in answer.headers["Content-Security-Policy"]


def test_report_is_there_again_once_the_file_is_whole(connect: Connect, runs: Path) -> None:
    client, file = connect(), runs / "plain" / "metrics.json"
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole[:50], encoding="utf-8")
    assert client.get("/report/plain").status_code == 500
    file.write_text(whole, encoding="utf-8")
    assert client.get("/report/plain").status_code == 200


def test_report_of_no_run_is_not_found(connect: Connect) -> None:
    assert connect().get("/report/nowhere").status_code == 404
