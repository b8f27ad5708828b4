"""A bundle's code cannot reach the data, and gets nothing from the worker but what the gate lets out."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict

from client.deployment.landlock import Allowed, landlock_abi
from client.deployment.separation import Separation, system_devices, system_paths
from client.socket.frames import HEAD, MAGIC, VERSION, pack_head, parse_record, read_frame
from shared_model.protocol.messages import (
    KINDS,
    REFIT,
    SIZES,
    STATISTICS,
    SUM_KINDS,
    TRAIN,
    HandshakeReply,
    Refusal,
    StudyReference,
    is_message,
)
from tests.client.hostile_courier import attempts_at_files, attempts_at_the_worker
from tests.client.served_worker import frame, receiver_of
from tests.client.worker_process import HospitalFolders, make_hospital_folders, worker_process
from tests.server.small_cohort import describe_study, requests_of_every_kind, small_settings
from tests.waiting import PATIENCE_S

HOSTILE = Path(__file__).with_name("hostile_courier.py")
# Of the system, not of the test's own installation: that may lie in a folder that no other user can enter.
PYTHON = Path("/usr/bin/python3")
COURIER = "nobody"
SIGNALS_ABI = 6

WITHOUT_LANDLOCK = """
import sys
import client.deployment.separation
client.deployment.separation.landlock_abi = lambda: 0
client.deployment.separation.main(sys.argv[1:])
"""

needs_landlock = pytest.mark.skipif(not landlock_abi(), reason="this kernel has no Landlock")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user")
pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason=f"no {PYTHON}, which every user could run")

WAYS = [
    pytest.param((None, True), id="Landlock", marks=needs_landlock),
    pytest.param((COURIER, False), id="another user", marks=needs_root),
    pytest.param((COURIER, True), id="another user and Landlock", marks=[needs_root, needs_landlock]),
]


@dataclass(frozen=True)
class Attack:
    """What came of it.

    Attributes:
        user: that the hostile code ran as.
        landlock: whether Landlock held it.
        result: what it wrote.
        said: by the launcher.
        audit: lines of the gate's log that it caused.
        folders: of the hospital.
    """

    user: str | None
    landlock: bool
    result: dict[str, Any]
    said: str
    audit: list[dict[str, Any]]
    folders: HospitalFolders

    def answer(self, name: str) -> RecordDict:
        return parse_record(read_frame(receiver_of(bytes.fromhex(self.result["answers"][name]))).payload)

    def reason(self, name: str) -> str:
        return Refusal.from_record(self.answer(name)).reason


@pytest.fixture(scope="module")
def hospital(open_root: Path) -> HospitalFolders:
    return make_hospital_folders(open_root)


@pytest.fixture(scope="module")
def open_root() -> Iterator[Path]:
    """A folder that every user may pass, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="hipfed-test-") as root:
        Path(root).chmod(0o711)
        yield Path(root)


@pytest.fixture(scope="module")
def worker_pid(hospital: HospitalFolders) -> Iterator[int]:
    options = ["--courier-user", COURIER] if os.geteuid() == 0 else []
    command = hospital.worker_command(*options, "--max-message-mib", "1")
    with worker_process(command, log=hospital.root / "log") as process:
        yield process.pid
        assert process.poll() is None, "the worker did not outlive the attacks"


def _questions(hospital: HospitalFolders) -> dict[str, bytes]:
    site, settings = hospital.site, small_settings()
    approved = requests_of_every_kind(site, settings)
    frames = {kind: frame(kind, request.to_record()) for kind, request in approved.items()}

    def of_another_study(**changes: Any) -> bytes:
        study: StudyReference = describe_study(site, settings).model_copy(update=changes)
        return frame(STATISTICS, approved[STATISTICS].model_copy(update={"study": study}).to_record())

    looser = settings.to_config() | {"min-patients": 1, "min-events": 1, "min-non-events": 1}
    return frames | {
        "unknown kind": frame("query.patients", approved[STATISTICS].to_record()),
        "changed setting": of_another_study(settings=settings.to_config() | {"seed": 1}),
        "looser rule": of_another_study(settings=looser),
        "other schema": of_another_study(schema_sha256="0" * 64),
        "other protocol": of_another_study(protocol=99),
        "oversized": pack_head(TRAIN, 2**20 + 1) + bytes(2**20 + 1),
        "other version": HEAD.pack(MAGIC, VERSION + 1, 5, 0) + b"train",
        "malformed": pack_head(TRAIN, 100) + b"\xff" * 100,
    }


def _read_audit(hospital: HospitalFolders) -> list[dict[str, Any]]:
    path = hospital.site.state_dir / "audit.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _describe_targets(hospital: HospitalFolders, worker_pid: int) -> dict[str, Any]:
    return {
        "data": str(hospital.data),
        "key": str(hospital.home / "keys" / "signing"),
        "cache": str(hospital.cache),
        "array": str(next(hospital.cache.rglob("outcome.npy"))),
        "log": str(hospital.site.state_dir / "worker.log"),
        "approvals": str(hospital.approvals.path),
        "socket": str(hospital.socket),
        "courier": str(hospital.courier),
        "pid": worker_pid,
        "questions": {name: question.hex() for name, question in _questions(hospital).items()},
    }


@pytest.fixture(scope="module", params=WAYS)
def attack(request: pytest.FixtureRequest, hospital: HospitalFolders, worker_pid: int) -> Attack:
    user, landlock = request.param
    _open_courier_folder(hospital, user)
    given = _describe_targets(hospital, worker_pid)
    (hospital.courier / "given.json").write_text(json.dumps(given))
    shutil.copy(HOSTILE, hospital.courier / "hostile.py")
    hidden = (hospital.data, hospital.home, hospital.cache, hospital.approvals.path)
    allowed = Allowed(read=system_paths(), write=(*system_devices(), hospital.courier))
    separation = Separation(allowed, hidden=hidden, user=user)
    before = len(_read_audit(hospital))
    script = [
        PYTHON,
        "-I",
        hospital.courier / "hostile.py",
        hospital.courier / "given.json",
        hospital.courier / "result",
    ]
    command = separation.command([str(word) for word in script])
    if not landlock:
        command = [
            sys.executable,
            "-P",
            "-c",
            WITHOUT_LANDLOCK,
            *command[command.index("client.deployment.separation") + 1 :],
        ]

    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd="/")

    assert done.returncode == 0, done.stderr
    result = json.loads((hospital.courier / "result").read_text())
    (hospital.courier / "result").unlink()
    return Attack(user, landlock, result, done.stderr, _read_audit(hospital)[before:], hospital)


def _open_courier_folder(hospital: HospitalFolders, user: str | None) -> None:
    hospital.courier.chmod(0o700)
    if os.geteuid() == 0:
        shutil.chown(hospital.courier, user or "root")


def test_same_attempts_succeed_without_separation(hospital: HospitalFolders, worker_pid: int) -> None:
    """Else their failure under separation would show nothing. Those that would destroy are left out."""
    _open_courier_folder(hospital, None)
    given = _describe_targets(hospital, worker_pid)
    tries = attempts_at_files(given)
    reading = [name for name in tries if name.startswith(("read", "list", "hard-link"))]
    if os.geteuid() == 0:  # a worker that closed itself to its own user is still open to root
        tries |= attempts_at_the_worker(given)
        reading += [name for name in tries if "worker's" in name and name != "take the worker's place"]

    outcomes = {name: tries[name]() for name in reading}

    assert len(outcomes) >= 9
    assert "east-000" in str(outcomes["read a table"])
    assert outcomes["read a key"] == "PRIVATE KEY"
    (hospital.courier / "table").unlink()


def test_launcher_says_what_separates(attack: Attack) -> None:
    ways = ([f"user {attack.user}"] if attack.user else []) + (
        [f"Landlock version {landlock_abi()}"] if attack.landlock else []
    )
    assert attack.said == f"separated by {' and '.join(ways)}\n"
    if attack.user:
        assert attack.result["who"]["uid"] != 0
        assert attack.result["who"]["groups"] == []


def test_hostile_bundle_reaches_no_file_of_the_hospital(attack: Attack) -> None:
    given = {"data": "", "pid": 0}
    expected = set(attempts_at_files(given))

    assert set(attack.result["files"]) == expected
    assert [name for name, outcome in attack.result["files"].items() if outcome.startswith("did it")] == []
    assert attack.result["files"]["read a table"] == "PermissionError"
    assert attack.result["files"]["read a key"] == "PermissionError"


def test_hostile_bundle_reaches_nothing_of_the_worker(attack: Attack) -> None:
    assert set(attack.result["worker"]) == set(attempts_at_the_worker({"pid": 0}))
    succeeded = {name for name, outcome in attack.result["worker"].items() if outcome.startswith("did it")}
    scoped = attack.user is not None or landlock_abi() >= SIGNALS_ABI
    assert succeeded == (set() if scoped else {"end the worker"})


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("unknown kind", "message: expected a question of protocol"),
        ("changed setting", "is not approved at this hospital"),
        ("looser rule", "is not approved at this hospital"),
        ("other schema", "study "),
        ("other protocol", "versions: coordinator of an unknown version protocol 99"),
        ("oversized", "frame: expected a payload of at most 1048576 bytes, got one of 1048577"),
        ("other version", f"frame: expected version {VERSION}, got {VERSION + 1}"),
        ("malformed", "frame: expected a record of Flower as payload"),
    ],
)
def test_worker_refuses_hostile_questions(attack: Attack, question: str, reason: str) -> None:
    assert attack.reason(question).startswith(reason) or reason in attack.reason(question)


def test_worker_lets_out_only_what_passed_the_gate(attack: Attack) -> None:
    passed = [line["sha256"] for line in attack.audit]
    assert all(is_message(attack.answer(kind), Refusal) for kind in (REFIT, SIZES, *SUM_KINDS))
    for kind in set(KINDS) - {REFIT, SIZES, *SUM_KINDS}:
        record = attack.answer(kind)
        assert not is_message(record, Refusal), attack.reason(kind)
        released = [_digest(arrays) for arrays in record.array_records.values()]
        row = json.loads(str(record.config_records["header"]["json"])).get("row")
        if row is not None:
            released.append(_digest({"json": np.frombuffer(row.encode(), dtype=np.uint8)}))
        if not is_message(record, HandshakeReply):
            assert released, f"{kind}: nothing to compare"
        for digest in released:
            assert digest in passed, f"{kind}: something left that is not in the audit log"
            passed.remove(digest)
    assert passed == []  # and the refused questions released nothing


def _digest(arrays: Any) -> str:
    """As the gate writes it."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = arrays[name] if isinstance(arrays[name], np.ndarray) else arrays[name].numpy()
        digest.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def test_no_patient_is_in_any_answer(attack: Attack) -> None:
    ids = [line.split(",")[0] for line in (attack.folders.data / "patients.csv").read_text().splitlines()[1:]]
    for answer in attack.result["answers"].values():
        assert not any(patient.encode() in bytes.fromhex(answer) for patient in ids)


def test_refused_frames_are_in_the_hospitals_log_without_their_payload(attack: Attack) -> None:
    log = (attack.folders.site.state_dir / "worker.log").read_text()

    assert "refused, kind ?: frame: expected a payload of at most 1048576 bytes" in log
    assert f"refused, kind {TRAIN}: frame: expected a record of Flower as payload" in log
    assert "'query.patients' refused" in log
    assert "\\xff" not in log
