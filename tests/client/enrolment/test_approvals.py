import json
import os
import re
import stat
from pathlib import Path

import pytest

from client.enrolment.approvals import Approvals
from client.site import Site
from client.worker.answering import Worker
from shared_model.config import Settings, parse_settings
from shared_model.errors import ApprovalError, SiteError
from shared_model.protocol.messages import HANDSHAKE, PROTOCOL_VERSION, HandshakeRequest, Refusal, is_message
from shared_model.protocol.study_hash import StudyFile, study_hash
from shared_model.schema import parse_schema
from tests.conftest import SMALL_STUDY
from tests.server.small_cohort import describe_study, small_settings

SCHEMA = parse_schema(SMALL_STUDY, source="schema.toml")


def _study(**changes: int) -> StudyFile:
    return StudyFile.of(SCHEMA, parse_settings(changes), protocol=PROTOCOL_VERSION)


@pytest.fixture
def approvals(tmp_path: Path) -> Approvals:
    return Approvals(tmp_path / "approvals.json")


def test_nothing_is_approved_at_first(approvals: Approvals) -> None:
    assert approvals.read() == ()
    with pytest.raises(ApprovalError, match=f"^study {'a' * 12} is not approved at this hospital; send it the file"):
        approvals.require("a" * 64)


def test_approved_study_is_let_through_and_no_other(approvals: Approvals) -> None:
    assert approvals.add(_study(seed=1))
    assert approvals.add(_study(seed=2))

    approvals.require(_study(seed=1).sha256)
    approvals.require(_study(seed=2).sha256)
    with pytest.raises(ApprovalError):
        approvals.require(_study(seed=3).sha256)
    assert [each.study for each in approvals.read()] == [_study(seed=1), _study(seed=2)]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", approvals.read()[0].approved)


def test_study_is_approved_once(approvals: Approvals) -> None:
    assert approvals.add(_study())
    assert not approvals.add(_study())
    assert len(approvals.read()) == 1


@pytest.mark.parametrize("n_digits", [12, 64])
def test_withdrawn_study_is_refused(approvals: Approvals, n_digits: int) -> None:
    approvals.add(_study(seed=1))
    approvals.add(_study(seed=2))

    assert approvals.withdraw(_study(seed=1).sha256[:n_digits]) == _study(seed=1)

    with pytest.raises(ApprovalError):
        approvals.require(_study(seed=1).sha256)
    approvals.require(_study(seed=2).sha256)


@pytest.mark.parametrize("digits", ["", "0" * 64, "short"])
def test_withdrawal_is_refused_when_it_means_no_study(approvals: Approvals, digits: str) -> None:
    approvals.add(_study())

    with pytest.raises(ApprovalError, match="expected at least 12 digits of one approved study"):
        approvals.withdraw(digits)
    with pytest.raises(ApprovalError):
        approvals.withdraw(_study().sha256[:11])
    assert len(approvals.read()) == 1


def test_file_is_open_to_its_owner_only_and_nothing_else_is_left(approvals: Approvals) -> None:
    before = os.umask(0)
    try:
        approvals.add(_study())
    finally:
        os.umask(before)

    assert stat.S_IMODE(approvals.path.stat().st_mode) == 0o600
    assert {path.name for path in approvals.path.parent.iterdir()} == {"approvals.json", ".approvals.lock"}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o606])
def test_file_that_others_can_open_approves_nothing(approvals: Approvals, mode: int) -> None:
    approvals.add(_study())
    approvals.path.chmod(mode)

    with pytest.raises(SiteError, match=f"mode {mode:04o}; others can change it"):
        approvals.require(_study().sha256)
    with pytest.raises(SiteError):
        approvals.add(_study(seed=1))


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:0],
        lambda text: text[: len(text) // 2],
        lambda text: f"[{text}]",
        lambda text: text.replace('"format": 1', '"format": 2', 1),
        lambda text: text.replace('"seed": 0', '"seed": 1'),
        lambda text: text.replace(_study().sha256, "f" * 64),
        lambda text: text.replace('"approved"', '"agreed"'),
    ],
    ids=["empty", "cut", "list", "format", "setting", "hash", "field"],
)
def test_damaged_file_approves_nothing_and_says_so(approvals: Approvals, damage: object) -> None:
    approvals.add(_study())
    assert callable(damage)
    text = damage(approvals.path.read_text())
    assert text != approvals.path.read_text()
    approvals.path.write_text(text)

    for sha256 in (_study().sha256, _study(seed=1).sha256, "f" * 64):
        with pytest.raises(SiteError, match="Until this is mended no study is approved") as caught:
            approvals.require(sha256)
    assert str(approvals.path) not in caught.value.public_reason


def test_study_of_a_kind_that_is_not_installed_withdraws_no_other(approvals: Approvals) -> None:
    study = _study()
    approvals.add(study)
    content = json.loads(approvals.path.read_text(encoding="utf-8"))
    other = json.loads(json.dumps(content["approvals"][0]))
    other["study"]["study"]["further"] = {"holograms": {"knee": {}}}
    other["study"]["sha256"] = "ab" * 32
    approvals.path.write_text(json.dumps(content | {"approvals": [other, *content["approvals"]]}), encoding="utf-8")

    assert [approval.study.sha256 for approval in approvals.read()] == [study.sha256]
    approvals.require(study.sha256)
    with pytest.raises(ApprovalError, match="is not approved"):
        approvals.require("ab" * 32)
    approvals.withdraw(study.sha256)
    assert [entry["study"]["sha256"] for entry in json.loads(approvals.path.read_text())["approvals"]] == ["ab" * 32]


def test_approvals_of_an_older_version_do_not_stand_in_the_way(approvals: Approvals) -> None:
    approvals.add(_study(seed=1))
    entry = json.loads(approvals.path.read_text())
    entry["approvals"][0]["study"] |= {"hipfed": "0.0.1", "protocol": 1, "settings": {"seed": 1}}
    approvals.path.write_text(json.dumps(entry))

    assert approvals.add(_study(seed=2))

    approvals.require(_study(seed=2).sha256)
    assert approvals.read()[0].study.hipfed == "0.0.1"


@pytest.mark.parametrize("change", [{"protocol": 99}])
def test_study_for_another_version_is_not_approved(approvals: Approvals, change: dict[str, object]) -> None:
    study = _study().model_copy(update=change)

    with pytest.raises(ApprovalError, match="Install that version, or ask the coordinator for a new file"):
        approvals.add(study)
    assert not approvals.path.exists()


def test_study_that_leaves_out_settings_is_not_approved(approvals: Approvals) -> None:
    settings = {key: value for key, value in _study().settings.items() if key != "min-patients"}

    with pytest.raises(ApprovalError, match="expected every setting, got some"):
        approvals.add(_study().model_copy(update={"settings": settings}))


def test_full_disk_keeps_the_approvals_that_there_were(approvals: Approvals, monkeypatch: pytest.MonkeyPatch) -> None:
    approvals.add(_study(seed=1))
    before = approvals.path.read_bytes()

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(SiteError, match=r"got: No space left on device\. Nothing was changed"):
        approvals.add(_study(seed=2))

    assert approvals.path.read_bytes() == before
    assert {path.name for path in approvals.path.parent.iterdir()} == {"approvals.json", ".approvals.lock"}


def _reason(worker: Worker, settings: Settings, **changes: object) -> str:
    study = describe_study(worker.site, settings).model_copy(update=changes)
    reply = worker.answer(HANDSHAKE, HandshakeRequest(study=study).to_record())
    return Refusal.from_record(reply).reason if is_message(reply, Refusal) else ""


def test_worker_answers_the_approved_study_whatever_its_run_is_called(small_site: Site, approvals: Approvals) -> None:
    worker, settings = Worker(small_site, approvals=approvals), small_settings()
    approvals.add(StudyFile.of(small_site.schema, settings, protocol=PROTOCOL_VERSION))

    assert _reason(worker, settings, run_id="first") == ""
    assert _reason(worker, settings, run_id="resumed") == ""


def test_worker_refuses_a_study_that_changed_until_it_is_approved_again(small_site: Site, approvals: Approvals) -> None:
    worker, changed = Worker(small_site, approvals=approvals), small_settings(seed=1)
    approvals.add(StudyFile.of(small_site.schema, small_settings(), protocol=PROTOCOL_VERSION))
    sha256 = study_hash(schema_sha256=small_site.schema.sha256, settings=changed.to_config(), protocol=PROTOCOL_VERSION)

    assert _reason(worker, changed).startswith(f"study {sha256[:12]} is not approved at this hospital")
    approvals.add(StudyFile.of(small_site.schema, changed, protocol=PROTOCOL_VERSION))
    assert _reason(worker, changed) == ""


def test_worker_of_a_deployment_refuses_secure_sums_whose_keys_nobody_approved(
    small_site: Site, approvals: Approvals
) -> None:
    worker, settings = Worker(small_site, approvals=approvals), small_settings(secure_sum=True)
    approvals.add(StudyFile.of(small_site.schema, settings, protocol=PROTOCOL_VERSION))

    assert _reason(worker, settings).startswith("secure-sum: expected a simulation, got a deployment")


def test_worker_refuses_an_approved_study_under_another_schema(small_site: Site, approvals: Approvals) -> None:
    worker, settings = Worker(small_site, approvals=approvals), small_settings()
    approvals.add(StudyFile.of(small_site.schema, settings, protocol=PROTOCOL_VERSION))
    approvals.add(StudyFile.of(SCHEMA, settings, protocol=PROTOCOL_VERSION))

    assert "is not approved" in _reason(worker, settings, schema_sha256="0" * 64)
    assert "expected the study with hash" in _reason(worker, settings, schema_sha256=SCHEMA.sha256)


def test_worker_refuses_every_study_without_a_path_when_its_approvals_are_damaged(
    small_site: Site, approvals: Approvals
) -> None:
    worker, settings = Worker(small_site, approvals=approvals), small_settings()
    approvals.add(StudyFile.of(small_site.schema, settings, protocol=PROTOCOL_VERSION))
    approvals.path.write_text("{")

    assert _reason(worker, settings) == "the hospital's own machine is in the way; see its worker log"
    assert "no study is approved" in (small_site.state_dir / "worker.log").read_text()
