import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.supercore.task_identity import TaskIdentity

import client.socket.direct_call
from client.app import app
from client.socket.frames import pack_record
from client.socket.worker_end import Door
from shared_model.protocol.messages import (
    HANDSHAKE,
    KINDS,
    SUM_KINDS,
    TRAIN,
    HandshakeReply,
    HandshakeRequest,
    Refusal,
    SumsReply,
    is_message,
)
from shared_model.protocol.messages import Message as Question
from tests.client.served_worker import serving
from tests.server.fake_grid import make_context
from tests.server.small_cohort import (
    describe_study,
    open_workers,
    requests_of_every_kind,
    small_settings,
    write_small_cohort,
)
from tests.waiting import PATIENCE_S


@pytest.fixture(autouse=True)
def _inside_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower builds messages only inside an app; workers of other tests are forgotten."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    client.socket.direct_call.open_worker.cache_clear()


@pytest.fixture
def cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HIPFED_CACHE", str(tmp_path / "cache"))
    return write_small_cohort(tmp_path / "cohort")


def _context(node_config: dict[str, Any], run_config: dict[str, Any] | None = None) -> Context:
    return make_context(node_config=node_config, run_config=run_config or {})


def _ask(kind: str, question: Question, context: Context, *, ttl: float = 60.0) -> Any:
    return app(Message(question.to_record(), dst_node_id=1, message_type=kind, ttl=ttl), context).content


def _handshake(cohort: Path, tmp_path: Path) -> HandshakeRequest:
    site = open_workers(cohort, tmp_path / "cache")[0].site
    return HandshakeRequest(study=describe_study(site, small_settings()))


@pytest.mark.parametrize(("partition", "name"), [(0, "east"), (1, "north"), (2, "south")])
def test_courier_of_a_simulation_serves_the_nth_hospital_of_the_cohort(
    cohort: Path, tmp_path: Path, partition: int, name: str
) -> None:
    context = _context({"partition-id": partition, "num-partitions": 3}, {"cohort": str(cohort)})

    reply = _ask(HANDSHAKE, _handshake(cohort, tmp_path), context)

    assert HandshakeReply.from_record(reply).site == name


def test_courier_of_a_hospital_serves_its_own_folder_under_its_own_name(cohort: Path, tmp_path: Path) -> None:
    node = {"data": str(cohort / "north"), "hospital": "St. Anna", "cache": str(tmp_path / "own")}

    reply = _ask(HANDSHAKE, _handshake(cohort, tmp_path), _context(node, {"cohort": "/nowhere"}))

    assert HandshakeReply.from_record(reply).site == "St. Anna"
    assert (tmp_path / "own" / "sites").is_dir()


def test_courier_names_a_hospital_after_its_folder_when_nothing_else_is_said(cohort: Path, tmp_path: Path) -> None:
    reply = _ask(HANDSHAKE, _handshake(cohort, tmp_path), _context({"data": f"{cohort / 'north'}/"}))

    assert HandshakeReply.from_record(reply).site == "north"


def test_courier_hands_over_every_kind_of_question(cohort: Path, tmp_path: Path) -> None:
    context = _context({"data": str(cohort / "east")})
    site = open_workers(cohort, tmp_path / "cache")[0].site
    settings = small_settings(strategy="newton", head="", share_refits=3)
    questions = requests_of_every_kind(site, settings)
    assert set(questions) == set(KINDS)

    replies = {kind: _ask(kind, question, context) for kind, question in questions.items()}

    assert {kind for kind, reply in replies.items() if is_message(reply, Refusal)} == set(SUM_KINDS)
    assert SumsReply.from_record(replies[TRAIN]).arrays["n-train"] == 36


def test_courier_reads_a_hospital_once_for_all_messages(cohort: Path, tmp_path: Path) -> None:
    context = _context({"data": str(cohort / "east")})
    _ask(HANDSHAKE, _handshake(cohort, tmp_path), context)
    (cohort / "east" / "patients.csv").unlink()  # the data were read for the first message

    reply = _ask(HANDSHAKE, _handshake(cohort, tmp_path), context)

    assert is_message(reply, HandshakeReply)


def test_courier_returns_the_refusal_of_its_worker(cohort: Path, tmp_path: Path) -> None:
    question = _handshake(cohort, tmp_path)
    (cohort / "east" / "patients.csv").write_text("patient_id\n1\n")

    reply = _ask(HANDSHAKE, question, _context({"data": str(cohort / "east")}))

    assert Refusal.from_record(reply).reason.startswith("data check failed: missing-column")


def test_courier_asks_the_worker_behind_the_socket(cohort: Path, tmp_path: Path) -> None:
    worker = open_workers(cohort, tmp_path / "cache")[0]
    node = {"socket": str(tmp_path / "socket" / "w"), "hospital": "east"}

    with serving(Door(tmp_path / "socket" / "w"), worker.answer):
        reply = _ask(HANDSHAKE, _handshake(cohort, tmp_path), _context(node))

    assert HandshakeReply.from_record(reply).site == "east"


@pytest.mark.parametrize(("node", "site"), [({}, "node 1"), ({"hospital": "St. Anna"}, "St. Anna")])
def test_courier_says_no_before_the_deadline_when_no_worker_answers(
    cohort: Path, tmp_path: Path, node: dict[str, str], site: str
) -> None:
    context = _context({"socket": str(tmp_path / "w"), **node})
    begin = time.monotonic()

    refusal = Refusal.from_record(_ask(HANDSHAKE, _handshake(cohort, tmp_path), context, ttl=0.5))

    assert time.monotonic() - begin >= 0.45
    assert refusal.reason == "the hospital's worker did not answer query.handshake within 0.45 s"
    assert refusal.site == site


COURIER = """
import sys
from pathlib import Path

import client.app
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.socket.frames import parse_record
from shared_model.protocol.messages import HANDSHAKE, HandshakeReply

for name in ("_task_id", "_run_id", "_node_id"):
    setattr(TaskIdentity, name, 1)
context = Context(run_id=1, node_id=1, node_config={"socket": sys.argv[1]}, state=RecordDict(), run_config={})
question = Message(parse_record(Path(sys.argv[2]).read_bytes()), dst_node_id=1, message_type=HANDSHAKE)
reply = client.app.app(question, context).content
print(HandshakeReply.from_record(reply).site)
print(*sorted({name.split(".")[0] for name in sys.modules} & {"torch", "torchvision", "pandas", "sklearn", "shap"}))
print(*sorted(name for name in sys.modules if name.startswith("client.")))
"""


def test_courier_answers_over_the_socket_without_torch_and_without_what_reads_patients(
    cohort: Path, tmp_path: Path
) -> None:
    worker = open_workers(cohort, tmp_path / "cache")[0]
    question = tmp_path / "question"
    question.write_bytes(pack_record(_handshake(cohort, tmp_path).to_record()))
    socket = tmp_path / "socket" / "w"

    with serving(Door(socket), worker.answer):
        command = [sys.executable, "-c", COURIER, str(socket), str(question)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    assert done.returncode == 0, done.stderr
    site, heavy, own = done.stdout.splitlines()
    assert site == "east"
    assert heavy == ""
    parts = ("", ".courier_end", ".frames", ".wire_fields")
    assert own == " ".join(["client.app", *(f"client.socket{part}" for part in parts)])
