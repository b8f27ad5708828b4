"""One question to some hospitals: who answers, what is added, and what is sent to whom."""

import json
from collections.abc import Mapping

import numpy as np
import pytest
from flwr.app import RecordDict

from server.protocol.answers import Answers
from server.protocol.hospitals import Hospitals
from server.protocol.link import Answer
from shared_model.config import Settings
from shared_model.evaluation.metrics import summarise
from shared_model.evaluation.score_sums import ScoreSums
from shared_model.protocol.messages import (
    KINDS,
    PROTOCOL_VERSION,
    EvaluateReply,
    EvaluateRequest,
    HandshakeReply,
    HandshakeRequest,
    ReferenceRequest,
    Refusal,
    StudyReference,
    SumsReply,
    TrainRequest,
)
from shared_model.protocol.questions import QUESTIONS, find_question
from shared_model.schema import parse_schema
from tests.server.faulty_links import RecordingLink, ScriptedLink
from tests.server.small_cohort import STATIC_SCHEMA, small_settings

NAMES = {0: "east", 1: "north", 2: "south"}
SCHEMA = parse_schema(STATIC_SCHEMA, source="schema.toml")
SETTINGS = small_settings(strategy="fedavg")
STUDY = StudyReference(run_id="run", protocol=PROTOCOL_VERSION, schema_sha256=SCHEMA.sha256, settings={})
REQUEST = ReferenceRequest(study=STUDY)
QUANTITIES = QUESTIONS["query.reference"].quantities(REQUEST, SCHEMA, SETTINGS)
SUMS = {name: np.ones(quantity.shape) for name, quantity in QUANTITIES.items()}
_METRICS = json.dumps(
    summarise(ScoreSums.from_scores(np.linspace(-2, 2, 60), (np.arange(60) % 3 == 0).astype(np.int8))).to_dict()
)
GOOD = SumsReply(arrays=SUMS).to_record()


def _hospitals(link: ScriptedLink | RecordingLink, *, names: Mapping[int, str] = NAMES) -> Hospitals:
    return Hospitals(link, STUDY, SCHEMA, SETTINGS, names)


def _ask(*, second: Answer) -> Answers:
    """Three hospitals, of which the one in the middle answers in a way of its own."""
    return _hospitals(ScriptedLink(3, lambda _, node, __: second if node == 1 else Answer(node, GOOD))).ask(REQUEST)


def _assert_two_are_added(answers: Answers) -> None:
    assert answers.attendance.answered == ["east", "south"]
    for name in QUANTITIES:
        np.testing.assert_allclose(answers.sums[name], 2.0)


def test_answers_of_all_hospitals_are_added() -> None:
    answers = _ask(second=Answer(1, GOOD))

    assert answers.attendance.answered == ["east", "north", "south"]
    assert answers.attendance.failed == {}
    assert set(answers.sums) == set(QUANTITIES)
    for total in answers.sums.values():
        np.testing.assert_allclose(total, 3.0)
    assert answers.own == {}


def test_hospital_that_missed_the_deadline_is_named_and_the_others_count() -> None:
    answers = _ask(second=Answer(1, None, "no answer within 1 s"))

    assert answers.attendance.asked == ["east", "north", "south"]
    assert answers.attendance.failed == {"north": "no answer within 1 s"}
    _assert_two_are_added(answers)


def test_refusal_keeps_its_reason_and_is_not_added() -> None:
    refusal = Refusal(site="north", reason="data check failed: unknown-level (3)").to_record()

    answers = _ask(second=Answer(1, refusal))

    assert answers.attendance.failed == {"north": "data check failed: unknown-level (3)"}
    _assert_two_are_added(answers)


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({**SUMS, "patients": np.ones(3)}, "unknown"),
        (dict(list(SUMS.items())[1:]), "missing"),
        ({name: value * np.nan for name, value in SUMS.items()}, "finite"),
    ],
    ids=["one-more", "one-less", "nan"],
)
def test_answer_that_is_not_what_the_question_allows_is_excluded(arrays: dict[str, np.ndarray], fault: str) -> None:
    answers = _ask(second=Answer(1, SumsReply(arrays=arrays).to_record()))

    assert fault in answers.attendance.failed["north"]
    _assert_two_are_added(answers)


def test_reply_to_another_question_is_excluded() -> None:
    other = HandshakeReply(site="north", version="1", modalities=[]).to_record()

    answers = _ask(second=Answer(1, other))

    assert "expected a SumsReply" in answers.attendance.failed["north"]
    _assert_two_are_added(answers)


def test_refusal_that_cannot_be_read_is_excluded() -> None:
    broken = Refusal(site="north", reason="no").to_record()
    broken.config_records["header"]["json"] = "{"

    answers = _ask(second=Answer(1, broken))

    assert "Refusal" in answers.attendance.failed["north"]
    _assert_two_are_added(answers)


@pytest.mark.parametrize(
    "reply",
    [
        EvaluateReply(row="[" * 100_000, arrays={}),
        EvaluateReply(row='{"auc": 1e400}', arrays={}),
        EvaluateReply(row=_METRICS, arrays={"score/n": np.array("many"), "score/events": np.array(20.0)}),
        EvaluateReply(row=_METRICS, arrays={"score/n": np.array(59.0), "score/events": np.array(20.0)}),
    ],
    ids=["nested", "infinite", "text for a count", "another count"],
)
def test_row_that_cannot_be_read_excludes_its_hospital_and_ends_no_run(reply: EvaluateReply) -> None:
    request = EvaluateRequest(
        study=STUDY, phase="fusion", weights_round=1, preprocessing="{}", event_weight=1.0, networks_sha256="0" * 64,
        weights_sha256="0" * 64, part="test", release_row=True,
    )  # fmt: skip
    link = ScriptedLink(3, lambda _, node, __: Answer(node, reply.to_record() if node == 1 else None, "no answer"))

    attendance = _hospitals(link).ask(request).attendance

    assert attendance.answered == []
    assert "expected" in attendance.failed["north"]


def test_hospital_without_a_name_is_called_by_its_node_or_by_its_refusal() -> None:
    agreed = HandshakeReply(site="any", version="1", modalities=[])
    refusal = Refusal(site="south", reason="no").to_record()
    replies = {0: Answer(0, agreed.to_record()), 1: Answer(1, None, "Flower error 2"), 2: Answer(2, refusal)}
    link = ScriptedLink(3, lambda _, node, __: replies[node])

    answers = _hospitals(link, names={}).ask(HandshakeRequest(study=STUDY), nodes=range(3))

    assert answers.attendance.answered == ["node 0"]
    assert answers.attendance.failed == {"node 1": "Flower error 2", "south": "no"}
    assert answers.own == {0: agreed}


def test_payload_is_counted_both_ways() -> None:
    def payload(record: RecordDict) -> int:
        arrays = sum(len(array.data) for field in record.array_records.values() for array in field.values())
        return arrays + sum(len(str(text)) for config in record.config_records.values() for text in config.values())

    attendance = _ask(second=Answer(1, None, "late")).attendance

    assert attendance.bytes_down == 3 * payload(REQUEST.to_record())
    assert attendance.bytes_up == 2 * payload(GOOD)


# ------------------------------------------------------------------------------------------- weights that some may hold

WEIGHTS = {"head.linear.weight": np.ones((1, 2), dtype=np.float32)}
NETWORKS = {"encoders.hip.network.conv": np.ones(3, dtype=np.float32)}


def _train_request() -> TrainRequest:
    return TrainRequest(
        study=STUDY,
        phase="fusion",
        round_number=0,
        weights_round=0,
        preprocessing="{}",
        event_weight=1.0,
        networks_sha256="0" * 64,
        frozen_sha256="0" * 64,
        weights=WEIGHTS,
        networks=NETWORKS,
    )


def _trained(settings: Settings) -> RecordDict:
    allowed = find_question(_train_request()).quantities(_train_request(), SCHEMA, settings)
    arrays = {name: np.zeros(quantity.shape) for name, quantity in allowed.items()} | {"n-train": np.array(10.0)}
    return SumsReply(arrays=arrays).to_record()


def test_weights_go_to_those_who_have_not_shown_to_hold_them_and_again_to_whom_lost_them() -> None:
    lacking = Refusal(site="south", code="needs-weights", reason="not held here").to_record()
    lost = {2}

    def answer(_: str, node: int, question: RecordDict) -> Answer:
        if node in lost and not question.array_records["networks"]:
            return Answer(node, lacking)
        return Answer(node, _trained(SETTINGS))

    link = RecordingLink(ScriptedLink(3, answer))
    holders = {"networks": {1, 2}}

    answers = _hospitals(link).ask(_train_request(), holders=holders)

    sent = [(node, bool(record.array_records["networks"])) for _, node, record in link.questions]
    assert sent == [(0, True), (1, False), (2, False), (2, True)]
    assert all(record.array_records["weights"] for _, _, record in link.questions)
    assert answers.attendance.answered == ["east", "north", "south"]
    assert answers.sums["n-train"] == 30
    assert holders == {"networks": {0, 1, 2}}


def test_hospital_that_asks_for_weights_which_it_got_is_not_asked_for_ever() -> None:
    lacking = Refusal(site="south", code="needs-weights", reason="not held here").to_record()
    link = RecordingLink(
        ScriptedLink(3, lambda _, node, __: Answer(node, lacking if node == 2 else _trained(SETTINGS)))
    )
    holders = {"networks": {0, 1, 2}}

    answers = _hospitals(link).ask(_train_request(), holders=holders)

    assert [node for _, node, _ in link.questions] == [0, 1, 2, 2]
    assert answers.attendance.failed == {"south": "not held here"}
    assert holders == {"networks": {0, 1}}


def test_fields_that_differ_between_hospitals_reach_each_its_own() -> None:
    link = RecordingLink(ScriptedLink(3, lambda _, node, __: Answer(node, _trained(SETTINGS))))

    _hospitals(link).ask(_train_request(), vary=lambda node: {"counted_round": node % 2})

    rounds = {node: TrainRequest.from_record(record).counted_round for _, node, record in link.questions}
    assert rounds == {0: 0, 1: 1, 2: 0}


# --------------------------------------------------------------------------------------------------------------- table


def test_every_kind_of_message_is_a_row_of_the_table() -> None:
    assert tuple(sorted(QUESTIONS)) == tuple(sorted(KINDS))
    requests = [question.request for question in QUESTIONS.values()]
    assert len(set(requests)) == len(requests)
