"""`hipfed-sim bench dashboard`: the whole command in small, and that what goes wrong is counted."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.dashboard.reading import RunReader
from simulation.bench.dashboard import summarise_waits
from simulation.bench.many_runs import copy_running, stretch_rounds
from simulation.bench.viewers import Address, Crowd, Waits, fetch
from simulation.cli import app
from tests.server.report.run_folders import training, write_run

LINES = training(("east", "north"), ("static",), rounds=3)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[Address]:
    """A server that gives everybody the same answer and ends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield Address(host, port)


async def ask(answer: bytes) -> bytes:
    async with answering(answer) as address:
        return await fetch(address, "/")


async def crowd_of(answer: bytes, run: Path) -> Waits:
    async with answering(answer) as address:
        crowd = Crowd(address, names=["run-001"], live="live")
        await crowd.look_on(run, LINES, viewers=2, seconds=0.05)
    return crowd.waits


def test_small_benchmark_has_no_errors_and_measures_every_wait(tmp_path: Path) -> None:
    small = "--runs 7 --rounds 4 --viewers 4 --seconds 3 --repeats 1 --patients 100"

    done = CliRunner().invoke(app, ["bench", "dashboard", "--out", str(tmp_path / "out.json"), *small.split()])

    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "out.json").read_text())
    assert set(result["pages"]) == {"list", "run", "comparison"}
    load = result["load"]
    assert (load["errors"], load["first_errors"]) == (0, [])
    assert {kind: row["n"] for kind, row in load["waits"].items() if kind != "round"} == {
        "list": 4,
        "run": 4,
        "first event": 4,
    }
    assert load["waits"]["round"]["n"] >= 1
    assert result["peak_mb"] >= result["idle_mb"] > 50


def test_page_of_another_status_or_length_is_an_error() -> None:
    assert asyncio.run(ask(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab")) == b"ab"
    with pytest.raises(OSError, match=r"expected status 200, got http/1\.1 500"):
        asyncio.run(ask(b"HTTP/1.1 500 Error\r\n\r\n"))
    with pytest.raises(OSError, match="expected 3 bytes, got 2"):
        asyncio.run(ask(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"))
    with pytest.raises(EOFError):
        asyncio.run(ask(b""))


def test_events_that_end_early_are_an_error(tmp_path: Path) -> None:
    waits = asyncio.run(crowd_of(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", tmp_path / "live"))

    assert waits.n_errors.keys() == {"events"}
    assert {"list", "run"} <= waits.seconds.keys()


def test_waits_are_summed_up_by_kind_with_their_errors() -> None:
    waits = Waits()
    for seconds in range(1, 102):
        waits.note("list", seconds / 1000)
    waits.note_error("run", "no answer")

    summary = summarise_waits(waits)

    assert summary["waits"]["list"] == {"n": 101, "errors": 0, "p50_ms": 51.0, "p95_ms": 96.0, "p99_ms": 100.0}
    assert summary["waits"]["run"] == {"n": 1, "errors": 1, "p50_ms": None, "p95_ms": None, "p99_ms": None}
    assert (summary["errors"], summary["first_errors"]) == (1, ["run: 'no answer'"])


def test_rounds_are_stretched_by_repeating_the_last_that_trained() -> None:
    lines = stretch_rounds(LINES, 5)

    assert [line["round"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["phase"] for line in lines] == ["unimodal", "fusion", "fusion", "fusion", "fusion"]
    assert all(line["train_loss"] is not None for line in lines)
    losses = [line["val_loss"] for line in lines]
    assert losses == sorted(losses, reverse=True)


def test_copy_of_a_run_that_goes_on_is_one_to_the_dashboard(tmp_path: Path) -> None:
    copy_running(write_run(tmp_path / "run"), tmp_path / "runs" / "live", rounds=5)

    (summary,) = RunReader(tmp_path / "runs").list_summaries()

    assert (summary.state, summary.tested) == ("running", None)
    assert summary.last is not None
    assert summary.last.round == 5
