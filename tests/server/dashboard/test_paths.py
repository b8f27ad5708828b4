"""No request leaves RUNS, and none changes it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from server.dashboard.folder import find_run, list_runs, open_runs
from shared_model.errors import SettingsError
from tests.server.dashboard.asking import Client
from tests.server.report.run_folders import write_run

Connect = Callable[..., Client]
SECRET = "a title from outside"  # noqa: S105 - a title

TRAVERSALS = (
    "../outside",
    "..%2foutside",
    "%2e%2e/outside",
    "%2e%2e%2foutside",
    "%252e%252e%252foutside",
    "plain/../../outside",
    "plain%2f..%2f..%2foutside",
    "..%5coutside",
    "....//outside",
    "%c0%ae%c0%ae/outside",
    "/etc",
    "%2fetc%2fpasswd",
    "plain/checkpoints",
    "plain/config.json",
    "plain%00",
    ".",
)


@pytest.fixture
def outside(runs: Path) -> Path:
    return write_run(runs.parent / "outside", title=SECRET)


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("page", ["run", "report", "events"])
@pytest.mark.parametrize("path", TRAVERSALS)
def test_path_does_not_leave_the_folder(connect: Connect, page: str, path: str) -> None:
    answer = connect().get(f"/{page}/{path}")
    assert answer.status_code == 404
    assert SECRET not in answer.text


@pytest.mark.usefixtures("outside")
def test_compared_names_do_not_leave_the_folder(connect: Connect) -> None:
    assert SECRET not in connect().get("/compare", params={"run": ["plain", "../outside"]}).text


def test_link_out_of_the_folder_is_no_run(runs: Path, outside: Path) -> None:
    (runs / "link").symlink_to(outside)
    (runs / "up").symlink_to(runs.parent)
    (runs / "self").symlink_to(runs)
    (runs / "loop").symlink_to(runs / "loop")
    assert list(list_runs(runs)) == ["plain"]


def test_link_within_the_folder_is_followed(runs: Path) -> None:
    (runs / "newest").symlink_to(runs / "plain")
    assert list(list_runs(runs)) == ["newest", "plain"]


def test_run_is_found_with_its_folds_by_the_name_of_any(runs: Path, outside: Path) -> None:
    for fold in ("fold-10", "fold-2"):
        write_run(runs / "pooled" / fold)
    (runs / "link").symlink_to(outside)
    found = find_run(runs, "pooled")
    assert list(found) == ["pooled", "pooled/fold-2", "pooled/fold-10"]
    assert find_run(runs, "pooled/fold-10") == found
    assert found == {name: place for name, place in list_runs(runs).items() if name.startswith("pooled")}
    for name in ("pooled/fold-3", "link", "nowhere", "", ".", "..", "plain/", "/plain"):
        assert find_run(runs, name) == {}


@pytest.mark.parametrize("name", ["config.json", "metrics.json", "explanations.json", "rounds.jsonl", "status.json"])
def test_linked_file_is_not_read_but_told(connect: Connect, runs: Path, outside: Path, name: str) -> None:
    (runs / "plain" / name).unlink()
    (runs / "plain" / name).symlink_to(outside / name)
    client = connect()
    for path in ("/", "/run/plain", "/report/plain"):
        assert SECRET not in client.get(path).text
    assert "got a link" in client.get("/run/plain").text


def test_pipe_in_a_run_holds_nobody_up(connect: Connect, runs: Path) -> None:
    (runs / "plain" / "metrics.json").unlink()
    os.mkfifo(runs / "plain" / "metrics.json")
    assert "damaged" in connect().get("/").text


def test_folder_of_another_kind_is_refused(runs: Path) -> None:
    with pytest.raises(SettingsError, match="got a run"):
        open_runs(runs / "plain")
    with pytest.raises(SettingsError, match="got none"):
        open_runs(runs / "missing")


def test_looking_writes_nothing(connect: Connect, runs: Path) -> None:
    def picture() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in [runs, *runs.rglob("*")]}

    before, client = picture(), connect()
    for path in ("/", "/run/plain", "/report/plain", "/compare?run=plain&run=plain"):
        assert client.get(path).status_code == 200
    assert picture() == before
