"""The worker's refusals: each says why, and none says anything of a patient."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from safetensors import SafetensorError

import client.worker.answering
import client.worker.tensor_cache
from client.site import Site
from client.worker.answering import Worker
from shared_model.errors import SettingsError
from shared_model.protocol.messages import (
    BACKGROUND,
    COMPONENTS,
    EVALUATE,
    EXPLAIN,
    HANDSHAKE,
    KINDS,
    PROTOCOL_VERSION,
    QUALITY,
    REFERENCE,
    REFIT,
    SIZES,
    SPREAD,
    STATISTICS,
    TRAIN,
    EvaluateReply,
    ExplainReply,
    HandshakeReply,
    HandshakeRequest,
    QualityReply,
    Refusal,
    StatisticsRequest,
    StudyReference,
    SumsReply,
    is_message,
)
from tests.server.small_cohort import (
    describe_study,
    evaluate_request,
    requests_of_every_kind,
    small_settings,
    train_request,
)

A_PATIENT = "east-017"


def _refusal(record: RecordDict) -> Refusal:
    assert is_message(record, Refusal), "expected a refusal"
    return Refusal.from_record(record)


def _bytes(record: RecordDict) -> bytes:
    """Everything that would leave the hospital."""
    texts = [str(value) for config in record.config_records.values() for value in config.values()]
    arrays = [array.data for arrays in record.array_records.values() for array in arrays.values()]
    return "\n".join(texts).encode() + b"\n".join(arrays)


def _handshake(site: Site, **changes: object) -> RecordDict:
    study = describe_study(site, small_settings()).model_copy(update=changes)
    return HandshakeRequest(study=study).to_record()


@pytest.mark.parametrize("kind", ["", "query.patients", "query.", "Train", "x" * 10_000])
def test_worker_refuses_an_unknown_kind(small_site: Site, kind: str) -> None:
    refusal = _refusal(Worker(small_site).answer(kind, _handshake(small_site)))

    assert refusal.site == "east"
    assert refusal.reason.startswith(f"message: expected a question of protocol {PROTOCOL_VERSION}, got ")
    assert len(refusal.reason) < 100


@pytest.mark.parametrize("kind", KINDS)
def test_worker_checks_the_schema_in_every_question(small_site: Site, kind: str) -> None:
    settings = small_settings()
    other = describe_study(small_site, settings).model_copy(update={"schema_sha256": "f" * 64})
    request = requests_of_every_kind(small_site, settings)[kind].model_copy(update={"study": other})

    refusal = _refusal(Worker(small_site).answer(kind, request.to_record()))

    assert "expected the study with hash ffffffffffff" in refusal.reason
    assert small_site.schema.sha256[:12] in refusal.reason


@pytest.mark.parametrize("settings", [{"learning-rate": -1.0}, {"unknown": 1}, {"modalities": "genome"}])
def test_worker_refuses_settings_that_it_does_not_know(small_site: Site, settings: dict[str, float]) -> None:
    refusal = _refusal(Worker(small_site).answer(HANDSHAKE, _handshake(small_site, settings=settings)))

    assert next(iter(settings)) in refusal.reason


def _without_header(record: RecordDict) -> None:
    del record["header"]


def _with_junk_header(record: RecordDict) -> None:
    record.config_records["header"]["json"] = "{"


def _with_unknown_field(record: RecordDict) -> None:
    fields = json.loads(str(record.config_records["header"]["json"]))
    record.config_records["header"]["json"] = json.dumps({**fields, "command": "rm"})


def _with_path_as_run_id(record: RecordDict) -> None:
    fields = json.loads(str(record.config_records["header"]["json"]))
    fields["study"]["run_id"] = "../../escape"
    record.config_records["header"]["json"] = json.dumps(fields)


def _with_another_type(record: RecordDict) -> None:
    record.config_records["header"]["type"] = "EvaluateRequest"


def _with_header_as_arrays(record: RecordDict) -> None:
    record["header"] = ArrayRecord({"x": Array(np.zeros(1))})


def _without_weights(record: RecordDict) -> None:
    del record["weights"]


def _with_weights_as_text(record: RecordDict) -> None:
    record["weights"] = ConfigRecord({"x": "y"})


def _with_array_of(data: bytes) -> Callable[[RecordDict], None]:
    def change(record: RecordDict) -> None:
        arrays = dict(record.array_records["weights"])
        name = next(iter(arrays))
        arrays[name] = Array(dtype="float32", shape=(1,), stype="numpy.ndarray", data=data)
        record["weights"] = ArrayRecord(arrays)

    return change


@pytest.mark.parametrize(
    "damage",
    [
        _without_header,
        _with_junk_header,
        _with_unknown_field,
        _with_path_as_run_id,
        _with_another_type,
        _with_header_as_arrays,
        _without_weights,
        _with_weights_as_text,
        _with_array_of(b""),
        _with_array_of(b"PK\x03\x04junk"),
        _with_array_of(b"\x93NUMPY\x01\x00\x10\x00{'descr': ((((((  "),
        _with_array_of(pickle.dumps([1])),
    ],
)
def test_worker_refuses_a_malformed_record_with_a_clear_reason(
    small_site: Site, damage: Callable[[RecordDict], None]
) -> None:
    record = train_request(small_site, small_settings()).to_record()
    damage(record)

    refusal = _refusal(Worker(small_site).answer(TRAIN, record))

    assert "expected" in refusal.reason
    assert "internal error" not in refusal.reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda weights: weights.pop("head.linear.bias"), "agreed names"),
        (lambda weights: weights.update({"head.extra": np.zeros(1, dtype=np.float32)}), "agreed names"),
        (lambda weights: weights.update({"head.linear.bias": np.zeros(2, dtype=np.float32)}), "head.linear.bias"),
        (
            lambda weights: weights.update({"head.linear.bias": np.full(1, np.nan, dtype=np.float32)}),
            "head.linear.bias: expected finite values of shape (1,)",
        ),
    ],
    ids=["missing", "unknown", "shape", "nan"],
)
def test_worker_refuses_weights_that_do_not_fit(
    small_site: Site, change: Callable[[dict[str, np.ndarray]], object], reason: str
) -> None:
    request = train_request(small_site, small_settings())
    change(request.weights)

    assert reason in _refusal(Worker(small_site).answer(TRAIN, request.to_record())).reason


def test_worker_asks_for_frozen_weights_that_it_does_not_hold(small_site: Site) -> None:
    request = train_request(small_site, small_settings(), with_frozen=False)

    refusal = _refusal(Worker(small_site).answer(TRAIN, request.to_record()))

    assert refusal.code == "needs-weights"


def test_full_disk_is_told_as_such_and_without_a_path(small_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    # what safetensors says of it; tests/end_to_end/chaos fills a real disk
    words = 'I/O error: Io(Os { message: "No space left on device (os error 28)" })'
    monkeypatch.setattr(client.worker.tensor_cache, "save_file", Mock(side_effect=SafetensorError(words)))
    worker = Worker(small_site)
    settings = small_settings()

    refusal = _refusal(worker.answer(EVALUATE, evaluate_request(small_site, settings).to_record()))

    assert refusal.reason == "the hospital's disk is full; it takes part again once there is room"
    assert not list(small_site.state_dir.rglob("*.part"))


@pytest.mark.parametrize("error", [ValueError, KeyError, RuntimeError, ZeroDivisionError, AssertionError, MemoryError])
def test_text_of_an_unforeseen_error_never_leaves(
    small_site: Site, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise error(f"patient {A_PATIENT} at {small_site.folder}: age 93.5")

    worker = Worker(small_site)
    monkeypatch.setitem(client.worker.answering._ANSWERS, STATISTICS, fail)

    reply = worker.answer(STATISTICS, StatisticsRequest(study=describe_study(small_site, small_settings())).to_record())

    assert _refusal(reply).reason == f"internal error: {error.__name__}; see the hospital's worker log"
    assert A_PATIENT.encode() not in _bytes(reply)
    log = (small_site.state_dir / "worker.log").read_text()
    assert A_PATIENT in log
    assert "Traceback" in log


def test_problems_with_the_data_leave_as_rule_names_and_counts_only(small_site: Site) -> None:
    table = small_site.folder / "patients.csv"
    lines = table.read_text().splitlines()
    lines[17] = lines[17].replace("east-016,", f"{A_PATIENT},", 1)  # now twice
    lines[30] = "east-secret,7,81,1,2"
    lines[31] = "east-other,0,unreadable,1,2"
    table.write_text("\n".join(lines) + "\n")

    worker = Worker(small_site)
    reply = worker.answer(HANDSHAKE, HandshakeRequest(study=_study_of(small_site)).to_record())

    reason = _refusal(reply).reason
    assert reason.startswith("data check failed: ")
    assert all(rule in reason for rule in ("duplicate-id (", "not-a-number (1)"))
    for secret in (A_PATIENT, "east-secret", "unreadable", "patients.csv", str(small_site.folder)):
        assert secret.encode() not in _bytes(reply)
    log = (small_site.state_dir / "worker.log").read_text()
    assert all(secret in log for secret in (A_PATIENT, "unreadable", "patients.csv"))


def test_worker_knows_what_is_wrong_with_its_data_until_it_is_mended(small_site: Site) -> None:
    table = small_site.folder / "patients.csv"
    whole = table.read_text()
    table.write_text("\n".join(line.rpartition(",")[0] for line in whole.splitlines()) + "\n")
    worker = Worker(small_site)
    question = HandshakeRequest(study=_study_of(small_site)).to_record()

    worker.read_patients()
    assert worker.data_fault == "data check failed: missing-column (1)"
    table.write_text(whole)
    worker.read_again()
    assert worker.data_fault == "data check failed: missing-column (1)"  # nothing was read yet
    assert not is_message(worker.answer(HANDSHAKE, question), Refusal)
    assert worker.data_fault == ""

    table.write_text(whole.replace(",0,", ",7,", 1))
    worker.read_again()
    worker.answer(HANDSHAKE, question)
    assert worker.data_fault == "data check failed: outcome-not-0-1 (1)"


def _study_of(site: Site) -> StudyReference:
    return describe_study(site, small_settings())


def test_broken_schema_leaves_without_its_path(small_site: Site) -> None:
    request = HandshakeRequest(study=_study_of(small_site))
    (small_site.folder / "schema.toml").write_text('[study]\nname = "x"\n')
    fresh = Site(small_site.name, small_site.folder, small_site.cache_dir)

    reply = Worker(fresh).answer(HANDSHAKE, request.to_record())

    assert _refusal(reply).reason == "schema.toml: not a valid study at the hospital; see its worker log"
    assert str(small_site.folder.parent).encode() not in _bytes(reply)


def test_full_disk_leaves_without_the_path_of_the_cache(small_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    request = HandshakeRequest(study=_study_of(small_site))
    worker = Worker(small_site)

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    monkeypatch.setattr("client.data.cache._flush", full_disk)
    reply = worker.answer(HANDSHAKE, request.to_record())

    _refusal(reply)
    assert str(small_site.cache_dir).encode() not in _bytes(reply)
    assert str(small_site.cache_dir) in (small_site.state_dir / "worker.log").read_text()


@pytest.mark.parametrize("n", [2, 9])
def test_worker_refuses_the_handshake_with_too_few_patients_and_does_not_say_how_many(small_site: Site, n: int) -> None:
    request = HandshakeRequest(study=_study_of(small_site))
    table = small_site.folder / "patients.csv"
    rows = sorted(table.read_text().splitlines()[1:], key=lambda line: line.split(",")[1], reverse=True)
    table.write_text("\n".join(["patient_id,died,age,male,asa", rows[0], *rows[-n + 1 :]]) + "\n")
    for name in ("vitals.csv", "drugs.csv"):
        (small_site.folder / name).unlink()

    reply = Worker(Site("east", small_site.folder, small_site.cache_dir)).answer(HANDSHAKE, request.to_record())

    assert (
        _refusal(reply).reason == "patients: expected at least 10 in the training part and 1 in each other, got fewer."
    )


def test_refusal_that_would_be_too_long_is_cut(small_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise SettingsError("x" * 5000)

    monkeypatch.setitem(client.worker.answering._ANSWERS, STATISTICS, fail)

    refusal = _refusal(
        Worker(small_site).answer(STATISTICS, StatisticsRequest(study=_study_of(small_site)).to_record())
    )

    assert len(refusal.reason) <= 2000


def test_handshake_names_the_site_and_the_modalities_that_some_patient_has(small_site: Site) -> None:
    request = HandshakeRequest(study=_study_of(small_site))
    (small_site.folder / "drugs.csv").unlink()

    reply = HandshakeReply.from_record(
        Worker(Site("east", small_site.folder, small_site.cache_dir)).answer(HANDSHAKE, request.to_record())
    )

    assert (reply.site, reply.modalities) == ("east", ["static", "vitals"])


def test_worker_answers_every_kind_and_logs_each_release_without_values(small_site: Site) -> None:
    settings = small_settings(strategy="newton", head="", share_refits=3)
    worker = Worker(small_site)
    requests = requests_of_every_kind(small_site, settings)

    replies = {kind: worker.answer(kind, request.to_record()) for kind, request in requests.items()}

    assert HandshakeReply.from_record(replies[HANDSHAKE]).site == "east"
    assert SumsReply.from_record(replies[REFERENCE]).arrays["outcome/n"] == 36  # three of five folds of 60
    assert json.loads(QualityReply.from_record(replies[QUALITY]).row)["findings"] == []
    assert SumsReply.from_record(replies[STATISTICS]).arrays["n"] == 36  # three of five folds of 60
    assert SumsReply.from_record(replies[TRAIN]).arrays["n-train"] == 36
    assert EvaluateReply.from_record(replies[EVALUATE]).arrays["score/n"] == 12
    assert SumsReply.from_record(replies[BACKGROUND]).arrays["patterns"].sum() == 36
    assert ExplainReply.from_record(replies[EXPLAIN]).arrays["n"][0] == 12
    assert set(SumsReply.from_record(replies[SPREAD]).arrays) == {f"between/{x}" for x in ("k", "w", "wy", "wyy", "ww")}
    lines = [json.loads(line) for line in (small_site.state_dir / "audit.jsonl").read_text().splitlines()]
    rows = [f"{EVALUATE}, own row", COMPONENTS, BACKGROUND, EXPLAIN, f"{EXPLAIN}, own row", SPREAD, REFIT, SIZES]
    assert [line["kind"] for line in lines] == [REFERENCE, f"{QUALITY}, own row", STATISTICS, TRAIN, EVALUATE, *rows]
    assert all(set(line) == {"time", "run_id", "kind", "arrays", "bytes", "sha256"} for line in lines)
    for reply in replies.values():
        assert b"east-0" not in _bytes(reply)
        assert str(small_site.folder).encode() not in _bytes(reply)


@pytest.mark.parametrize("name", ["worker.log", "audit.jsonl", ""])
def test_state_of_a_site_is_private_to_its_owner(small_site: Site, name: str) -> None:
    Worker(small_site)
    path: Path = small_site.state_dir / name

    folder = path if path.is_dir() else path.parent
    assert folder.stat().st_mode & 0o077 == 0


def test_worker_log_does_not_travel_to_flowers_log(small_site: Site, caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker(small_site)

    worker.answer(HANDSHAKE, _handshake(small_site, protocol=99))

    assert "versions: coordinator" in (small_site.state_dir / "worker.log").read_text()
    assert caplog.text == ""
