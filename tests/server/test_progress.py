"""What is shown of a run while it goes on."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from server.progress import Watch, _describe_line
from server.run_folder import RunFolder
from shared_model.config import parse_settings


def _watch(tmp_path: Path) -> tuple[Watch, RunFolder, StringIO]:
    folder, screen = RunFolder(tmp_path / "run"), StringIO()
    progress = Progress(console=Console(file=screen, width=200))
    return Watch(folder, progress, settings=parse_settings({}), n_sites=6), folder, screen


def test_round_that_nobody_answered_is_shown_without_numbers() -> None:
    line = {"asked": ["a", "b", "c"], "answered": [], "failed": {"a": "why"}, "val_loss": None, "val_auc": None}

    assert _describe_line(line, n_sites=6) == "0/6 hospitals, validation loss -, AUC -, failed: a"


def test_excluded_hospitals_are_shown_once_as_soon_as_the_run_folder_names_them(tmp_path: Path) -> None:
    watch, folder, screen = _watch(tmp_path)

    watch()
    assert screen.getvalue() == ""
    folder.write_json("config.json", {"excluded": {"north": "data check failed: [red] (1)"}})
    watch()
    watch()

    assert screen.getvalue() == "excluded: north: data check failed: [red] (1)\n"


def test_hospital_excluded_later_is_shown_without_those_before(tmp_path: Path) -> None:
    watch, folder, screen = _watch(tmp_path)
    folder.write_json("config.json", {"excluded": {"north": "schema differs"}})
    watch()
    folder.write_json("config.json", {"excluded": {"north": "schema differs", "south": "data quality: red"}})
    watch()

    assert screen.getvalue() == "excluded: north: schema differs\nexcluded: south: data quality: red\n"


def test_exclusion_of_the_run_before_is_not_shown(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").write_json("config.json", {"excluded": {"north": "was away"}})
    watch, _, screen = _watch(tmp_path)

    watch()

    assert screen.getvalue() == ""
