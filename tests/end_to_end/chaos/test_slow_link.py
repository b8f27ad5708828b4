"""A large model over a slow line that stalls for half a minute: in time, and not from the beginning again."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import client.flower.supernode
from tests.end_to_end.chaos.conftest import FAR, HOSPITALS, Ground, standing
from tests.end_to_end.chaos.strikes import (
    assert_completed,
    assert_no_round_lost,
    assert_same_results,
    client_app_with_question,
    log_end,
    read_lines,
    running,
    supernode_log,
)
from tests.end_to_end.deployed import Done
from tests.waiting import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
BITS_PER_S = 20e6
STALL_S = 35.0  # longer than every timeout of one request
HALFWAY = 15e6  # bytes
PIECE = 5 * 2**20  # Flower cuts arrays into such, and sends two at a time
# Encoders that train travel in every round, both ways: 45 MB down and as much up.
TRAINED = {
    "rounds-unimodal": "1",
    "rounds-fusion": "1",
    "image-training": "trained",
    "strategy": "fedavg",
    "head-penalty": "0.0001",
    "explain": "none",
    "deadline-s": "300",
}
LARGE = {"rounds-unimodal": "0", "rounds-fusion": "0", "rounds-joint": "1", "image-encoder": "resnet50"} | {
    "deadline-s": "1200",
}


@pytest.mark.parametrize("direction", ["down", "up"])
def test_large_model_over_a_slow_line_with_a_stall_makes_its_deadline_and_does_not_begin_anew(
    usual: Ground, tmp_path: Path, direction: str, record_property: Callable[[str, object], None]
) -> None:
    usual.use(TRAINED)
    out = tmp_path / "run"

    done, n_bytes, payload = _run_over_slow_line(usual, out, direction, record_property)

    assert_completed(done, out)
    assert_no_round_lost(out, HOSPITALS)
    assert payload > 2 * HALFWAY
    # What was on its way when the line stalled goes again, and no more.
    assert payload < n_bytes < 1.05 * payload + 3 * PIECE


@pytest.mark.skipif("HIPFED_LONG" not in os.environ, reason="takes half an hour: HIPFED_LONG=1 runs it")
@pytest.mark.timeout(3600)
def test_model_of_400_megabytes_over_a_slow_line(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Four ResNet-50, all trained at once."""
    with standing(tmp_path / "large", image_names=("hip", "chest", "pelvis", "femur")) as ground:
        ground.deployment.wait_connected(*HOSPITALS)
        ground.use(TRAINED | LARGE)
        out = tmp_path / "run"

        done, n_bytes, payload = _run_over_slow_line(ground, out, "up", record_property)

        assert_completed(done, out)
        assert_no_round_lost(out, HOSPITALS)
        assert payload > 350e6
        assert payload < n_bytes < 1.05 * payload + 3 * PIECE


def _run_over_slow_line(
    ground: Ground, out: Path, direction: str, record_property: Callable[[str, object], None]
) -> tuple[Done, int, float]:
    """The line stalls in the first round: on the way to the hospital or back.

    Returns:
        The command's end; bytes that passed this way until the end of that round; payload of its message.
    """
    proxy = ground.proxy
    with running(ground.deployment, out) as run:
        run.wait_for("query.statistics", 1, hospital=FAR)
        proxy.bytes_per_s = BITS_PER_S / 8
        before = {"down": proxy.down, "up": proxy.up}

        def passed() -> dict[str, int]:
            return {"down": proxy.down - before["down"], "up": proxy.up - before["up"]}

        wait_until(lambda: passed()[direction] > HALFWAY or run.process.poll() is not None)
        proxy.stall(STALL_S)
        run.wait_for("evaluate", 1, hospital=FAR)
        first_round = passed()
        done = run.finish()
    proxy.bytes_per_s = None

    lines = [line for line in read_lines(out) if line["bytes_down"]]
    payload = {way: int(str(lines[0][f"bytes_{way}"])) / len(HOSPITALS) for way in first_round}
    for way, n_bytes in first_round.items():
        record_property(f"MB {way}", f"{n_bytes / 1e6:.1f} for a payload of {payload[way] / 1e6:.1f}")
    record_property("seconds of each round", [line["seconds"] for line in lines])
    return done, first_round[direction], payload[direction]


def test_question_lost_with_a_line_that_breaks_is_put_again(usual: Ground, tmp_path: Path) -> None:
    """The gateway has handed it out, and it never arrives: the hospital waits for the next, the coordinator for it."""
    out, log = tmp_path / "run", supernode_log(usual.deployment, FAR)
    start = log_end(log)
    with running(usual.deployment, out) as run:
        run.wait_for("train", 1, hospital="east")
        with client_app_with_question(usual.deployment, "east"):
            wait_until(lambda: f"train: {FAR} answered" in (out / "log.txt").read_text())
            usual.proxy.stall(60.0, ways=["down"])
        run.wait_for("evaluate", 1, hospital="east")
        time.sleep(3.0)  # the gateway looks for a question every second
        usual.proxy.break_off(2.0)
        usual.proxy.stall(0.0)
        done = run.finish()

    assert client.flower.supernode.LOST.encode() in log.read_bytes()[start:]
    assert_completed(done, out)
    assert_no_round_lost(out, HOSPITALS)
    assert_same_results(out, usual.expected)


def test_line_that_is_cut_within_the_tls_handshake_costs_no_round(usual: Ground, tmp_path: Path) -> None:
    """Flower's SuperNode leaves its loop then; it is started again and asked again."""
    out = tmp_path / "run"
    with running(usual.deployment, out) as run:
        run.wait_for("train", 2, hospital=FAR)
        usual.proxy.break_off(10.0)
        done = run.finish()

    assert_completed(done, out)
    assert_no_round_lost(out, HOSPITALS)
    assert_same_results(out, usual.expected)
