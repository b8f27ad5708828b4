"""From nothing to a finished study of three hospitals, by the guides' commands: TLS, node authentication, gateway."""

import json
import os
import random
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from client.flower.supernode import COURIER
from shared_model.config import parse_settings
from shared_model.process import supervision
from shared_model.process.guardian import marked_processes
from tests.end_to_end.chaos.strikes import (
    assert_completed,
    assert_no_round_lost,
    assert_same_results,
    kill_worker_at_work,
    running,
)
from tests.end_to_end.deployed import UNHURRIED, Deployment, Done
from tests.server.small_cohort import run_small_study, write_small_cohort

SETTINGS = {
    "rounds-unimodal": "1",
    "rounds-fusion": "2",
    "device": "cpu",
    "explain": "modalities",
    "share-refits": "2",
    "trust-coordinator": "true",  # else heads are refitted in one process only, and ranges of shares differ
    **UNHURRIED,
}
HOSPITALS = ("east", "north", "south")
LOOKS = 20  # at each process, over a second

pytestmark = pytest.mark.timeout(7200)  # the first test waits for a whole deployment and three studies


@dataclass(frozen=True)
class Finished:
    """A deployment after its first study.

    Attributes:
        deployment: up.
        run: folder of the first study.
        done: its command.
        status: what the coordinator said then.
        struck: a second run, of which parts were killed.
        unapproved: a third one, of a study that a hospital did not approve.
        commands: name and command line of each process of the deployment that was seen during the first study.
    """

    deployment: Deployment
    run: Path
    done: Done
    status: Done
    struck: Done
    unapproved: Done
    commands: set[tuple[str, str]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    folder = tmp_path_factory.mktemp("deployment")
    deployment = Deployment.of(folder, write_small_cohort(folder / "cohort", hospitals=3), HOSPITALS)
    try:
        deployment.provision()
        for name in HOSPITALS:
            deployment.enrol(name)
        deployment.start_coordinator()
        sha256 = deployment.make_study(SETTINGS)
        for name in HOSPITALS:
            deployment.approve(name, sha256)
            deployment.start_hospital(name)
        with _watched_commands(deployment) as commands:
            done = deployment.command(*deployment.run_words(folder / "run"))
        status = deployment.command("hipfed-server", "status", "--home", deployment.coordinator.folder)
        struck, unapproved = _run_struck(deployment), _run_unapproved(deployment)
        yield Finished(deployment, folder / "run", done, status, struck, unapproved, commands)
    finally:
        deployment.stop()
    assert deployment.processes() == []


@contextmanager
def _watched_commands(deployment: Deployment) -> Iterator[set[tuple[str, str]]]:
    """What every user of the machine can see in its list of processes, looked at again and again."""
    seen: set[tuple[str, str]] = set()
    ended = threading.Event()
    looks: Counter[int] = Counter()

    def look() -> None:
        while not ended.wait(0.05):
            pids = set(psutil.pids())
            for pid in pids:
                if looks[pid] < LOOKS:  # the first may see the parent's, before the program is its own
                    looks[pid] += 1
                    with suppress(psutil.Error):
                        process = psutil.Process(pid)
                        if deployment.owns(process):
                            seen.add((process.name(), " ".join(process.cmdline())))
            for pid in looks.keys() - pids:
                del looks[pid]

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def _run_struck(deployment: Deployment) -> Done:
    """The same study, whose worker at east and whose coordinator's program are killed; resumed to its end."""
    out = deployment.folder / "struck"
    with running(deployment, out) as run:
        run.wait_for("train", 1, hospital="east")
        kill_worker_at_work(deployment, "east", random.Random(1))
        run.wait_for("train", 2, hospital="north")
        run.kill()
    with running(deployment, out, resume=True) as run:
        return run.finish()


def _run_unapproved(deployment: Deployment) -> Done:
    """Another study, which north does not approve. All runs are made before a test revokes a hospital."""
    sha256 = deployment.make_study({**SETTINGS, "seed": 1, "min-sites": 2, "explain": "none", "rounds-unimodal": 0})
    for name in ("east", "south"):
        deployment.approve(name, sha256)
    return deployment.command(*deployment.run_words(deployment.folder / "unapproved"))


def test_study_gives_the_bytes_of_the_same_study_in_one_process(finished: Finished, tmp_path: Path) -> None:
    assert finished.done.returncode == 0, finished.done.stdout + finished.done.stderr
    assert json.loads((finished.run / "status.json").read_text()) == {"state": "completed", "reason": ""}
    here = run_small_study(finished.deployment.cohort, tmp_path / "here", settings=parse_settings(SETTINGS))
    for name in ("model.safetensors", "metrics.json", "explanations.json", "quality.json"):
        assert (finished.run / name).read_bytes() == (here.path / name).read_bytes()


def test_token_of_no_task_is_in_a_command_line(finished: Finished) -> None:
    assert COURIER in {name for name, _ in finished.commands}, "no courier was seen"
    server_apps = [command for _, command in finished.commands if "flwr-serverapp" in command]
    assert server_apps
    assert all("--token-file /dev/fd/" in command for command in server_apps)
    assert not [command for _, command in finished.commands if "--token " in command]


def test_hospital_listens_on_loopback_only(finished: Finished) -> None:
    deployment = finished.deployment
    home = str(deployment.hospital("east").folder)

    def listening() -> set[str]:
        found = set()
        for process in deployment.find(home):
            with suppress(psutil.NoSuchProcess):
                connections = process.net_connections("inet")
                found |= {each.laddr.ip for each in connections if each.status == psutil.CONN_LISTEN}
        return found

    deployment.wait_connected("east")
    deployment.wait(lambda: bool(listening()))  # a SuperNode whose coordinator was away begins anew
    assert listening() == {"127.0.0.1"}


def test_status_tells_processes_hospitals_and_certificates(finished: Finished) -> None:
    assert finished.status.returncode == 0, finished.status.stdout
    for words in ("superlink: up", "gateway: up", "server certificate: 823 days left"):
        assert words in finished.status.stdout
    assert finished.status.stdout.count("connected") == 3


def test_doctor_finds_no_fault_at_a_connected_hospital(finished: Finished) -> None:
    finished.deployment.wait_connected("east")
    done = finished.deployment.command("hipfed-client", "doctor", "--home", finished.deployment.hospital("east").folder)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "path", ["/v1/control/list-runs", "/v1/runtime/get-nodes", "/docs", "/openapi.json", "/health"]
)
def test_gateway_hides_every_other_interface_of_flower(finished: Finished, path: str) -> None:
    coordinator = finished.deployment.coordinator
    with httpx.Client(verify=ssl.create_default_context(cafile=str(coordinator.ca)), trust_env=False) as hospital:
        answer = hospital.post(f"https://{coordinator.settings.address}{path}", content=b"")

    assert (answer.status_code, answer.content) == (404, b"")


def test_plain_http_is_refused(finished: Finished) -> None:
    with httpx.Client(trust_env=False) as hospital, pytest.raises(httpx.TransportError):
        hospital.post(f"http://{finished.deployment.coordinator.settings.address}/v1/fleet/pull-messages")


def test_second_start_is_refused(finished: Finished) -> None:
    done = finished.deployment.command("hipfed-server", "start", "--home", finished.deployment.coordinator.folder)

    assert done.returncode == 1
    assert done.stderr.startswith(
        f"hipfed-server: {finished.deployment.coordinator.folder}: expected no `hipfed-server start`"
    )


def test_study_that_a_hospital_did_not_approve_goes_on_without_it(finished: Finished) -> None:
    done, run = finished.unapproved, finished.deployment.folder / "unapproved"

    assert done.returncode == 0, done.stdout + done.stderr
    excluded = json.loads((run / "config.json").read_text())["excluded"]
    assert list(excluded) == ["north"]
    assert "is not approved" in excluded["north"]


def test_worker_killed_in_one_round_and_coordinator_in_the_next_give_the_same_bytes_after_resuming(
    finished: Finished,
) -> None:
    out = finished.deployment.folder / "struck"

    assert_completed(finished.struck, out)
    assert_no_round_lost(out, HOSPITALS)
    assert_same_results(out, finished.run)


def test_killed_worker_and_supernode_come_back(finished: Finished) -> None:
    deployment, name = finished.deployment, "south"
    deployment.wait_connected(name)
    processes = deployment.hospital(name).folder / "processes"
    for part in (0, 1):
        before = supervision.read_status(processes)
        assert before is not None
        pid, restarts = before.parts[part].pid, before.parts[part].restarts
        assert pid is not None
        os.kill(pid, 9)

        def is_back(part: int = part, restarts: int = restarts) -> bool:
            status = supervision.read_status(processes)
            return status is not None and status.ready and status.parts[part].restarts > restarts

        deployment.wait(is_back)


def test_revoked_hospital_is_refused_at_once_and_told_so(finished: Finished) -> None:
    deployment = finished.deployment
    deployment.wait_connected("north")
    home, processes = deployment.coordinator.folder, deployment.hospital("north").folder / "processes"

    deployment.must("hipfed-server", "revoke", "--home", home, "north", "--reason", "a test")

    def is_refused() -> bool:
        status = supervision.read_status(processes)
        return status is not None and "refused this hospital's key" in status.line

    deployment.wait(is_refused)
    said = deployment.must("hipfed-server", "status", "--home", home)
    assert "revoked" in said


def test_killed_half_comes_back_and_a_killed_supervisor_leaves_nothing(finished: Finished) -> None:
    deployment = finished.deployment
    folder = deployment.coordinator.processes
    before = supervision.read_status(folder)
    assert before is not None
    superlink, gateway = before.parts
    assert gateway.pid is not None
    os.kill(gateway.pid, 9)

    def is_back() -> bool:
        status = supervision.read_status(folder)
        return status is not None and status.ready and status.parts[1].restarts > gateway.restarts

    deployment.wait(is_back)
    os.kill(before.pid, 9)
    deployment.wait(lambda: not marked_processes(before.token))
    assert supervision.read_status(folder) is None
    assert superlink.pid is not None
    assert not psutil.pid_exists(superlink.pid)
    deployment.start_coordinator()
