"""What is shown of a run while it goes on."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from server.run_folder.folder import RunFolder
from server.run_folder.progress import Bars, Watch, _describe_line, show_bars, watched
from shared_model.config import parse_settings


def _watch(tmp_path: Path) -> tuple[Watch, RunFolder, StringIO]:
    folder, screen = RunFolder(tmp_path / "run"), StringIO()
    progress = Progress(console=Console(file=screen, width=200))
    return Bars(folder, progress, settings=parse_settings({}), n_sites=6), folder, screen


def _round(number: int, phase: str) -> dict[str, Any]:
    parts = {"asked": ["a"], "answered": ["a", "b"], "failed": {}}
    return {"round": number, "phase": phase, **parts, "val_loss": 0.25, "val_auc": 0.75}


class _Flushed(StringIO):
    """Keeps what had been written by the last flush."""

    seen = ""

    def flush(self) -> None:
        self.seen = self.getvalue()


def test_run_without_a_terminal_is_told_in_lines_of_stages_and_rounds_each_at_once(tmp_path: Path) -> None:
    folder, screen = RunFolder(tmp_path / "run"), _Flushed()
    folder.write_rounds([_round(1, "unimodal")])  # of the attempt before
    folder.write_json("config.json", {"roster": []})
    console = Console(file=screen, width=30)
    told = []
    with watched(folder, settings=parse_settings({}), n_sites=3, console=console) as watch:
        told.append(screen.seen)
        folder.write_json("config.json", {"excluded": {"c": "was away"}, "roster": [{"site": "b"}, {"site": "a"}]})
        watch()
        folder.write_json("config.json", {"excluded": {"c": "was away"}, "roster": [{"site": "a"}, {"site": "b"}]})
        watch()  # written anew, with the same hospitals
        folder.write_rounds([_round(1, "unimodal"), _round(2, "fusion")])
        watch()
        watch()
        told.append(screen.seen)
        for name in ("model.json", "metrics.json", "explanations.json"):
            folder.write_json(name, {})

    assert told[0] == "run: starting\n"
    assert told[1].splitlines()[1:] == [
        "excluded: c: was away",
        "run: hospitals: a, b",
        "run fusion round 2: 2/3 hospitals, validation loss 0.2500, AUC 0.750",
    ]
    assert screen.seen.splitlines()[4:] == ["run: trained", "run: evaluated", "run: explained"]
    assert "\x1b" not in screen.seen


def test_run_on_a_terminal_is_told_in_bars(tmp_path: Path) -> None:
    folder, screen = RunFolder(tmp_path / "run"), StringIO()
    console = Console(file=screen, width=120, force_terminal=True)
    with watched(folder, settings=parse_settings({}), n_sites=3, console=console) as watch:
        folder.write_rounds([_round(1, "unimodal"), _round(2, "unimodal")])
        watch()

    assert "run unimodal" in screen.getvalue()
    assert "2/2" in screen.getvalue()
    assert "\x1b" in screen.getvalue()


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


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("name", ["run", "a-run-with-a-name-that-is-much-longer-than-others-are"])
def test_bars_cut_no_number_on_a_narrow_terminal(width: int, name: str) -> None:
    screen = StringIO()
    progress = show_bars(Console(file=screen, width=width))
    progress.add_task(f"{name} fusion", total=35, completed=34, last="5/5 hospitals, validation loss 0.2591, AUC 0.823")

    progress.console.print(progress.get_renderable())

    words = screen.getvalue().split()
    assert {"34/35", "0:00:00", "0.2591,", "0.823"} <= set(words)
    assert "…" not in screen.getvalue()
