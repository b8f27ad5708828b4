"""The worker of a simulated hospital, whose data are those of who asks."""

from unittest.mock import Mock

import pytest

import client.worker.answering
from client.site import Site
from client.worker.answering import Worker
from shared_model.protocol.messages import STATISTICS, Refusal, StatisticsRequest
from tests.server.small_cohort import describe_study, small_settings


def test_simulated_hospital_says_what_failed_and_where_its_log_is(
    small_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulation's user owns all hospitals and can read their logs, if told where they are."""
    fail = Mock(side_effect=KeyError("static"))
    monkeypatch.setitem(client.worker.answering._ANSWERS, STATISTICS, fail)
    question = StatisticsRequest(study=describe_study(small_site, small_settings())).to_record()

    refusal = Refusal.from_record(Worker(small_site, simulated=True).answer(STATISTICS, question))

    log = small_site.state_dir / "worker.log"
    assert refusal.reason == f"internal error: KeyError: 'static'; see the hospital's worker log ({log})"
    assert log.exists()
