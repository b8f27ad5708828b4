"""The worker as a hospital runs it, in a process of its own."""

import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import RecordDict
from typer.testing import CliRunner

from client.cli import app
from client.socket.courier_end import ask_worker
from client.worker.data_news import tell_fault
from shared_model.protocol.messages import HANDSHAKE, REFIT, SIZES, SUM_KINDS, HandshakeRequest, Refusal, is_message
from tests.client.worker_process import (
    HospitalFolders,
    make_hospital_folders,
    worker_process,
)
from tests.server.small_cohort import describe_study, requests_of_every_kind, small_settings
from tests.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> HospitalFolders:
    return make_hospital_folders(tmp_path_factory.mktemp("hospital"))


@pytest.fixture(scope="module")
def running(folders: HospitalFolders) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that takes the place of a killed one, whose courier waits; at the end it stops as it should."""
    folders.socket.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folders.socket))
    reasons: list[str] = []
    courier = threading.Thread(target=lambda: reasons.append(_reason(folders)))
    courier.start()
    with worker_process(folders.worker_command(), log=folders.root / "log") as process:
        courier.join(PATIENCE_S)
        assert reasons == [""], "the courier that waited got no answer"
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        assert not folders.socket.exists()


def _ask(folders: HospitalFolders, kind: str, question: RecordDict) -> RecordDict:
    return ask_worker(folders.socket, kind, question, limit_s=PATIENCE_S)


def _reason(folders: HospitalFolders, **settings: float) -> str:
    """Why the worker refuses to take part; empty if it does not."""
    study = describe_study(folders.site, small_settings(**settings))
    reply = _ask(folders, HANDSHAKE, HandshakeRequest(study=study).to_record())
    return Refusal.from_record(reply).reason if is_message(reply, Refusal) else ""


@pytest.mark.usefixtures("running")
def test_worker_answers_every_question_of_an_approved_study(folders: HospitalFolders) -> None:
    settings = small_settings(strategy="newton", head="", share_refits=3)
    folders.approve(settings)
    questions = requests_of_every_kind(folders.site, settings)

    replies = {kind: _ask(folders, kind, question.to_record()) for kind, question in questions.items()}

    refused = {kind: Refusal.from_record(reply).reason for kind, reply in replies.items() if is_message(reply, Refusal)}
    assert refused == {kind: f"{kind}: expected a question as secure-sum says, got another." for kind in SUM_KINDS}


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("kind", [REFIT, SIZES])
def test_worker_refuses_refits_to_a_coordinator_that_its_study_does_not_trust(
    folders: HospitalFolders, kind: str
) -> None:
    settings = small_settings(strategy="newton", head="", share_refits=3, trust_coordinator=False)
    folders.approve(settings)
    question = requests_of_every_kind(folders.site, settings)[kind]

    reply = _ask(folders, kind, question.to_record())

    assert Refusal.from_record(reply).reason.startswith(f"{kind}: expected a question of a simulation or of a study")


@pytest.mark.usefixtures("running")
def test_approval_holds_and_ends_at_once(folders: HospitalFolders) -> None:
    assert "is not approved at this hospital" in _reason(folders, seed=7)
    folders.approve(small_settings(seed=7))
    assert _reason(folders, seed=7) == ""
    folders.approvals.withdraw(folders.approvals.read()[-1].study.sha256)
    assert "is not approved at this hospital" in _reason(folders, seed=7)


@pytest.mark.usefixtures("running")
def test_new_run_takes_the_patients_that_the_folder_holds_now(folders: HospitalFolders) -> None:
    table = folders.data / "patients.csv"
    before = table.read_text()
    assert _reason(folders) == ""
    table.write_text(before.replace(",0,", ",7,", 1))
    try:
        assert _reason(folders) == "data check failed: outcome-not-0-1 (1)"
    finally:
        table.write_text(before)
    assert _reason(folders) == ""


@pytest.mark.usefixtures("running")
def test_worker_tells_its_supervisor_when_the_data_break_and_when_they_are_mended(
    folders: HospitalFolders, running: subprocess.Popen[bytes]
) -> None:
    table = folders.data / "patients.csv"
    before = table.read_text()
    assert running.stderr is not None
    table.write_text("\n".join(line.rpartition(",")[0] for line in before.splitlines()) + "\n")
    try:
        _reason(folders)
    finally:
        table.write_text(before)
    _reason(folders)

    said = (line.decode().rstrip("\n") for line in running.stderr)
    assert tell_fault("data check failed: missing-column (1)") in said
    assert next(said) == tell_fault("")


def test_worker_closes_itself_to_other_processes_of_its_user(running: subprocess.Popen[bytes]) -> None:
    """One call does it, and forbids dumps of memory, which is what can be seen from outside."""
    limits = Path(f"/proc/{running.pid}/limits").read_text()

    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)


def test_worker_refuses_a_courier_user_that_does_not_exist(folders: HospitalFolders) -> None:
    done = CliRunner().invoke(app, folders.worker_command("--courier-user", "no-such-user")[1:])

    assert done.exit_code == 1
    assert "--courier-user: expected a user of this machine, got 'no-such-user'." in done.stderr
