"""What a run's page says of its hospitals."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.server.dashboard.asking import Client
from tests.server.report.run_folders import change, training, write_run

HUNDRED = [f"hospital {number:03}" for number in range(100)]


def test_round_in_which_many_failed_names_five_and_counts_the_rest(connect: Callable[..., Client], runs: Path) -> None:
    run = write_run(runs / "hundred", hospitals=HUNDRED)
    line = {**training(HUNDRED, ["static"], 1)[0], "failed": dict.fromkeys(HUNDRED, "no answer")}
    (run / "rounds.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    text = connect().get("/run/hundred").text
    assert "hospital 000, hospital 001, hospital 002, hospital 003, hospital 004 and 95 more" in text
    assert "Failures, the latest first (20 of 100):" in text


def test_line_that_only_validates_is_no_round(connect: Callable[..., Client], runs: Path) -> None:
    write_run(runs / "short", rounds=3)
    text = connect().get("/run/short").text
    assert [text.count(f"<bdi>{name}</bdi>") for name in ("1, validation only", "2, validation only")] == [1, 0]


def test_hospitals_that_failed_after_the_rounds_come_first(connect: Callable[..., Client], runs: Path) -> None:
    run = write_run(runs / "late")
    change(run, "explanations.json", failed={"south": "out of memory"}, spread_failed={"north": "no answer"})
    text = connect().get("/run/late").text
    assert "Failures, the latest first (2 of 2):" in text
    spread, explained = text.index("Spread of the explanation between hospitals, "), text.index("Explanation, ")
    assert spread < explained
    assert "out of memory" in text[explained:]


def test_hospital_that_left_before_the_run_was_resumed_is_not_counted_among_those_that_take_part(
    connect: Callable[..., Client], runs: Path
) -> None:
    run = write_run(runs / "resumed")
    config = json.loads((run / "config.json").read_text())
    change(run, "config.json", roster=[member for member in config["roster"] if member["site"] != "north"])

    text = connect().get("/run/resumed").text

    assert "Hospitals that take part: 2; excluded: 0" in text
    assert "left before the run was resumed" in text


def test_report_of_a_run_that_goes_on_is_said_to_be_of_now(connect: Callable[..., Client], runs: Path) -> None:
    change(write_run(runs / "on"), "status.json", state="running")
    said = "The report is written at the end of the run."
    assert said not in connect().get("/run/plain").text
    assert said in connect().get("/run/on").text
