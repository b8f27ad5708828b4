"""A hospital with another hipfed than the coordinator's says which, and what to install."""

import json

import pytest
from flwr.app import RecordDict

from client.site import Site
from client.worker.answering import Worker
from shared_model.protocol.messages import (
    HANDSHAKE,
    PROTOCOL_VERSION,
    HandshakeReply,
    HandshakeRequest,
    Refusal,
    StudyReference,
    is_message,
)
from shared_model.version import own_version
from tests.server.small_cohort import describe_study, small_settings


def _refusal(record: RecordDict) -> Refusal:
    assert is_message(record, Refusal), "expected a refusal"
    return Refusal.from_record(record)


def _study(site: Site, **changes: object) -> StudyReference:
    return describe_study(site, small_settings()).model_copy(update=changes)


@pytest.mark.parametrize(
    ("changes", "hipfed", "coordinator", "install"),
    [
        ({"protocol": 99}, "9.9", "9.9 protocol 99", "9.9"),
        ({"protocol": 99}, "", "of an unknown version protocol 99", "of the same protocol on both sides"),
    ],
)
def test_worker_names_both_versions_where_they_differ(
    small_site: Site, changes: dict[str, object], hipfed: str, coordinator: str, install: str
) -> None:
    study = _study(small_site, **changes)

    refusal = _refusal(Worker(small_site).answer(HANDSHAKE, HandshakeRequest(study=study, hipfed=hipfed).to_record()))

    assert refusal.reason == (
        f"versions: coordinator {coordinator}, this hospital {own_version()} protocol {PROTOCOL_VERSION}: install "
        f"hipfed {install}, and approve the study again."
    )


def test_worker_answers_another_version_with_the_same_protocol_and_tells_its_own(small_site: Site) -> None:
    reply = Worker(small_site).answer(HANDSHAKE, HandshakeRequest(study=_study(small_site), hipfed="9.9").to_record())

    assert HandshakeReply.from_record(reply).version == own_version()


def test_worker_names_versions_also_of_a_question_with_fields_that_it_does_not_know(small_site: Site) -> None:
    record = HandshakeRequest(study=_study(small_site, protocol=99)).to_record()
    header = json.loads(str(record.config_records["header"]["json"]))
    record.config_records["header"]["json"] = json.dumps({**header, "hipfed": "9.9", "of-the-future": 1})

    assert "versions: coordinator 9.9 protocol 99" in _refusal(Worker(small_site).answer(HANDSHAKE, record)).reason
