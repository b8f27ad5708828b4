"""How long the phase that runs may still take: by hand from its rounds."""

import math
from collections.abc import Sequence

import pytest
from pydantic import TypeAdapter

from server.dashboard.time_left import TimeLeft, estimate_time_left
from server.run_folder.records import Config, Round
from tests.server.report.run_folders import config

T_2 = 4.302652729911275  # 97.5 % quantile of Student's t with 2 degrees of freedom, from tables
PHASES = ("unimodal", "fusion")


def config_of(**settings: object) -> Config:
    wanted = {"rounds-unimodal": 2, "rounds-fusion": 10, "patience": 4, **settings}
    return TypeAdapter(Config).validate_python(
        {**config(["east"], ["static"], title="", outcome="died"), "settings": wanted}
    )


def round_of(number: int, **values: object) -> Round:
    """A round that trained, unless it says otherwise."""
    line = {"round": number, "phase": "fusion", "train_loss": 0.5, "seconds": 2.0, **values}
    return TypeAdapter(Round).validate_python(line)


def rounds_of(*seconds: float | None, losses: Sequence[float] = (), phase: str = "fusion") -> list[Round]:
    """Rounds that trained, with losses that fall unless others are given."""
    falling = losses or [1 / (i + 1) for i in range(len(seconds))]
    lines = zip(seconds, falling, strict=True)
    return [round_of(i + 1, phase=phase, val_loss=loss, seconds=second) for i, (second, loss) in enumerate(lines)]


def left_after(rounds: Sequence[Round], **settings: object) -> TimeLeft:
    left = estimate_time_left(config_of(**settings), rounds)
    assert left is not None
    return left


def test_nothing_is_said_before_the_first_round_or_without_settings() -> None:
    assert estimate_time_left(config_of(), []) is None
    assert estimate_time_left(None, rounds_of(1.0, 1.0, 1.0)) is None
    assert estimate_time_left(config_of(**{"no-such-setting": 1}), rounds_of(1.0, 1.0, 1.0)) is None
    assert estimate_time_left(config_of(), rounds_of(1.0, phase="of another version")) is None


@pytest.mark.parametrize("n", [1, 2])
def test_rounds_are_counted_but_no_time_is_said_before_three(n: int) -> None:
    assert left_after(rounds_of(*[1.0] * n)) == TimeLeft("fusion", n, 10, None, None, ())


def test_rounds_of_another_phase_or_without_a_time_do_not_count() -> None:
    left = left_after([*rounds_of(1.0, 1.0, phase="unimodal"), *rounds_of(2.0, None, 2.0)])
    assert (left.phase, left.done, left.low_s) == ("fusion", 3, None)


def test_phases_that_are_to_come_are_named() -> None:
    assert left_after(rounds_of(1.0, phase="unimodal")) == TimeLeft("unimodal", 1, 2, None, None, ("fusion",))


def test_equal_rounds_leave_patience_to_all_rounds() -> None:
    left = left_after(rounds_of(2.0, 2.0, 2.0))
    assert (left.done, left.most) == (3, 10)
    assert left.low_s == pytest.approx(4 * 2.0)  # four rounds without a better loss end the phase
    assert left.high_s == pytest.approx((7 + 1) * 2.0)  # seven that train, one that only validates


def test_rounds_without_a_better_loss_use_the_patience_up() -> None:
    left = left_after(rounds_of(*[2.0] * 4, losses=[0.9, 0.5, 0.6, 0.5]))
    assert left.low_s == pytest.approx(2 * 2.0)


def test_nothing_is_left_when_the_patience_is_used_up() -> None:
    left = left_after(rounds_of(*[2.0] * 5, losses=[0.5, 0.6, 0.6, 0.6, 0.6]))
    assert (left.low_s, left.high_s) == (0.0, 0.0)


def test_end_is_no_later_than_the_last_round() -> None:
    left = left_after(rounds_of(*[2.0] * 9))
    assert left.low_s == pytest.approx(4.0)
    assert left.high_s == pytest.approx(4.0)


def test_nothing_is_left_after_the_round_that_only_validates() -> None:
    last = round_of(3, train_loss=None, val_loss=0.1)
    left = left_after([*rounds_of(2.0, 2.0, 2.0), last], **{"rounds-fusion": 3})
    assert (left.done, left.most, left.low_s, left.high_s) == (3, 3, 0.0, 0.0)


def test_spread_of_the_rounds_widens_the_range() -> None:
    left = left_after(rounds_of(9.0, 10.0, 11.0))
    assert left.low_s == pytest.approx(4 * 10.0 - T_2 * 1.0 * math.sqrt(4 + 4 * 4 / 3))
    assert left.high_s == pytest.approx(8 * 10.0 + T_2 * 1.0 * math.sqrt(8 + 8 * 8 / 3))


def test_time_left_is_never_negative() -> None:
    assert left_after(rounds_of(0.1, 0.1, 100.0)).low_s == 0.0


def test_more_rounds_than_are_planned_leave_one_at_most() -> None:
    left = left_after(rounds_of(*[2.0] * 12))
    assert (left.done, left.most) == (12, 10)
    assert left.high_s == pytest.approx(2.0)


def test_rounds_whose_losses_are_not_told_may_end_at_once_or_go_on_to_the_last() -> None:
    left = left_after([round_of(i) for i in range(1, 7)])
    assert left.low_s == 0.0
    assert left.high_s == pytest.approx((4 + 1) * 2.0)
