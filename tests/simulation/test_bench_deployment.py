"""`hipfed-sim bench deployment`: what it reckons from two logs, and the round whose memory it measures."""

import pytest
from flwr.supercore.task_identity import TaskIdentity

from shared_model.errors import StudyError
from simulation.bench.message_costs import pair_answers, read_run_log, read_worker_log, summarise_costs
from simulation.bench.reply_memory import one_round

RUN_LOG = """\
2026-01-01T10:00:01.000 INFO query.handshake: node 7 answered after 1.00 s
2026-01-01T10:00:05.000 INFO train: east answered after 3.00 s
2026-01-01T10:00:05.500 INFO train: north answered after 3.50 s
2026-01-01T10:00:05.500 INFO round 1 fusion: 2 of 2 hospitals, train loss 0.5, validation loss 0.5, AUC 0.5
2026-01-01T10:00:09.000 INFO evaluate: east answered after 2.50 s
"""
EAST_LOG = """\
2026-01-01 10:00:00,900 INFO query.handshake answered in 0.500 s
2026-01-01 10:00:04,500 INFO train answered in 1.000 s
2026-01-01 10:00:08,750 INFO evaluate answered in 0.250 s
"""


def test_cost_is_the_time_that_the_worker_did_not_work_on_the_way_there_and_back() -> None:
    asked = read_run_log(RUN_LOG.splitlines())

    train, evaluate = pair_answers(asked["east"], read_worker_log(EAST_LOG.splitlines()))

    assert set(asked) == {"east", "north"}
    assert (train.kind, train.way_there, train.work, train.way_back) == ("train", 1.5, 1.0, 0.5)
    assert train.beyond_work == 2.0
    assert (evaluate.kind, evaluate.beyond_work) == ("evaluate", 2.25)
    summary = summarise_costs([train, evaluate])
    assert summary["all"]["beyond_work"] == {"n": 2, "min": 2.0, "median": 2.125, "p90": 2.25, "max": 2.25}
    assert summary["train"]["work"]["median"] == 1.0


def test_logs_that_do_not_tell_of_the_same_messages_are_refused() -> None:
    asked = read_run_log(RUN_LOG.splitlines())["east"]

    with pytest.raises(StudyError, match="expected 2 answers of the same kinds in both, got 1"):
        pair_answers(asked, read_worker_log(EAST_LOG.splitlines()[:2]))


def test_round_of_the_memory_measurement_adds_the_answer_of_every_hospital(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):  # set by one_round, as Flower does
        monkeypatch.setattr(TaskIdentity, name, None)

    assert one_round(5, 1)() == 5
