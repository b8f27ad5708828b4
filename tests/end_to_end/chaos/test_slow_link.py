"""A large model over a slow line that stalls for half a minute: in time, and not from the beginning again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.end_to_end.chaos.conftest import FAR, HOSPITALS, Ground
from tests.end_to_end.chaos.strikes import (
    assert_completed,
    assert_no_round_lost,
    assert_same_results,
    read_lines,
    running,
    wait_until,
)

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


@pytest.mark.parametrize("direction", ["down", "up"])
def test_large_model_over_a_slow_line_with_a_stall_makes_its_deadline_and_does_not_begin_anew(
    usual: Ground, tmp_path: Path, direction: str, record_property: Callable[[str, object], None]
) -> None:
    usual.use(TRAINED)
    proxy, out = usual.proxy, tmp_path / "run"
    with running(usual.deployment, out) as run:
        run.wait_for("query.statistics", 1, hospital=FAR)
        proxy.bytes_per_s = BITS_PER_S / 8
        down, up = proxy.down, proxy.up
        wait_until(lambda: (proxy.down - down if direction == "down" else proxy.up - up) > HALFWAY)
        proxy.stall(STALL_S)
        done = run.finish()
    proxy.bytes_per_s = None

    assert_completed(done, out)
    assert_no_round_lost(out, HOSPITALS)
    lines = [line for line in read_lines(out) if line["bytes_down"]]
    passed = {"down": proxy.down - down, "up": proxy.up - up}
    payload = {way: sum(int(str(line[f"bytes_{way}"])) for line in lines) / len(HOSPITALS) for way in passed}
    for way, n_bytes in passed.items():
        record_property(f"MB {way}", f"{n_bytes / 1e6:.1f} for a payload of {payload[way] / 1e6:.1f}")
    record_property("seconds of each round", [line["seconds"] for line in lines])
    # What was on its way when the line stalled goes again, and no more.
    assert passed[direction] < 1.1 * payload[direction] + 4 * PIECE


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
