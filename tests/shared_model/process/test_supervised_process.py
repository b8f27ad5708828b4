"""What the end of a part means."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app
from shared_model.process.supervised_process import Part, last_words


class Silent(Part):
    def command(self) -> list[str]:
        return ["true"]

    def is_ready(self) -> bool:
        return False


def test_error_in_a_box_is_why_a_part_ended(tmp_path: Path) -> None:
    missing = "/".join([str(tmp_path), *["a-folder-of-patients"] * 5])
    options = ["--data", missing, "--name", "n", "--socket", "s", "--approvals", "a"]
    said = CliRunner().invoke(app, ["worker", *options], env={"COLUMNS": "80"}).output
    part = Silent("worker", folder=tmp_path, environment={})
    for line in said.splitlines():
        part.observe(line)

    reason = part.explain(2).reason

    assert len(said.splitlines()[-1].strip("╰─╯+-")) == 0  # else the test would show nothing
    assert reason == (
        f"worker ended by itself (exit status 2): Invalid value for '--data': Directory '{missing}' does not exist."
    )


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["first", "no disk", "", "----"], "no disk"),
        (["+- Error --+", "| no such  |", "| file.    |", "+----------+"], "no such file."),
        (["", "╰───╯"], ""),
        ([], ""),
    ],
)
def test_last_words_are_those_that_say_something(lines: list[str], words: str) -> None:
    assert last_words(lines) == words


def test_reason_is_short_and_told_where_a_part_said_nothing(tmp_path: Path) -> None:
    part = Silent("worker", folder=tmp_path, environment={})
    assert part.explain(1).reason == "worker ended by itself (exit status 1): it said nothing"

    part.observe("x" * 9000)

    assert len(part.explain(1).reason) < 500
