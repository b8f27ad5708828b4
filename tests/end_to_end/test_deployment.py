"""A coordinator and two hospitals as they run for real: TLS, node authentication, the gateway between them."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil
import pytest

from server.deployment.home import CoordinatorHome
from shared_model import supervised
from shared_model.config import parse_settings
from shared_model.guardian import marked_processes
from tests.server.coordinator_home import make_home, revoke
from tests.server.small_cohort import run_small_study, write_small_cohort

COMMAND = Path(sys.executable).parent / "hipfed-server"
SETTINGS = {"rounds-unimodal": "0", "rounds-fusion": "1", "rounds-joint": "0", "device": "cpu", "explain": "none"}
HOSPITALS = ("east", "north")
MARK = "HIPFED_TEST_DEPLOYMENT"

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Deployment:
    """A running coordinator and its hospitals."""

    home: CoordinatorHome
    cohort: Path
    hospitals: dict[str, Path]
    environment: dict[str, str]
    runs: tuple[subprocess.CompletedProcess[str], ...] = ()

    @property
    def out(self) -> Path:
        """Folder of the run that was made at the beginning."""
        return self.cohort.parent / "run"

    @property
    def finished_run(self) -> subprocess.CompletedProcess[str]:
        """Its command."""
        return self.runs[0]

    @property
    def status_after_run(self) -> subprocess.CompletedProcess[str]:
        """What the coordinator said of itself after it."""
        return self.runs[1]

    def command(self, *words: str | Path, timeout_s: float = 180.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def post(self, path: str) -> httpx.Response:
        """A request from a hospital's address, which trusts the coordinator but has no key."""
        with httpx.Client(verify=ssl.create_default_context(cafile=str(self.home.ca)), trust_env=False) as client:
            return client.post(f"https://{self.home.config.address}{path}", content=b"")


def _processes_of(environment: dict[str, str]) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == environment[MARK] and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def _wait(condition: Callable[[], bool], *, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def _start_hospital(
    folder: Path, *, coordinator: CoordinatorHome, data: Path, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    name = data.name
    (folder / "keys").mkdir(parents=True)
    shutil.copy(coordinator.path.parent / f"{name}.key", folder / "keys" / "node")
    shutil.copy(coordinator.ca, folder / "ca.crt")
    (folder / "hospital.toml").write_text(
        f'name = "{name}"\ndata = "{data}"\nserver = "{coordinator.config.address}"\ncache = "{folder / "cache"}"\n'
    )
    with (folder / "output").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.end_to_end.direct_hospital", folder],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("deployment")
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, MARK: uuid.uuid4().hex, "COLUMNS": "200", "PYTHONPATH": root}
    cohort = write_small_cohort(folder / "cohort", hospitals=2)
    deployment = Deployment(
        make_home(folder / "coordinator", HOSPITALS), cohort, {name: folder / name for name in HOSPITALS}, environment
    )
    try:
        started = deployment.command("start", "--home", deployment.home.path, "--detach")
        assert started.returncode == 0, started.stdout + started.stderr
        supervisors = [
            _start_hospital(home, coordinator=deployment.home, data=cohort / name, environment=environment)
            for name, home in deployment.hospitals.items()
        ]
        finished = _run(deployment, deployment.out)  # before a test revokes a hospital or kills the coordinator
        status = deployment.command("status", "--home", deployment.home.path)
        yield replace(deployment, runs=(finished, status))
    finally:
        for home in (*deployment.hospitals.values(), deployment.home.path):
            supervised.stop(home / "processes")
    assert [supervisor.wait(10) for supervisor in supervisors] == [0, 0]
    assert _processes_of(environment) == []


def _run(deployment: Deployment, out: Path) -> subprocess.CompletedProcess[str]:
    options = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    schema = deployment.cohort / "schema.toml"
    return deployment.command(
        *("run", "--home", deployment.home.path, "--schema", schema, "--out", out),
        *("--min-sites", "2", *options),
    )


def test_run_through_the_gateway_gives_the_bytes_of_the_run_in_one_process(
    deployment: Deployment, tmp_path: Path
) -> None:
    done, run = deployment.finished_run, deployment.out

    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((run / "status.json").read_text()) == {"state": "completed", "reason": ""}
    settings = parse_settings({**SETTINGS, "min-sites": 2})
    here = run_small_study(deployment.cohort, tmp_path / "here", settings=settings)
    for name in ("model.safetensors", "metrics.json"):
        assert (run / name).read_bytes() == (here.path / name).read_bytes()


def test_status_tells_processes_hospitals_and_certificates(deployment: Deployment) -> None:
    said = deployment.status_after_run

    assert said.returncode == 0, said.stdout
    for words in ("superlink: up", "gateway: up", "server certificate: 89 days left"):
        assert words in said.stdout
    assert said.stdout.count("connected") == 2


@pytest.mark.parametrize(
    "path", ["/v1/control/list-runs", "/v1/runtime/get-nodes", "/docs", "/openapi.json", "/health"]
)
def test_gateway_hides_every_other_interface_of_flower(deployment: Deployment, path: str) -> None:
    answer = deployment.post(path)

    assert (answer.status_code, answer.content) == (404, b"")


def test_second_start_is_refused(deployment: Deployment) -> None:
    done = deployment.command("start", "--home", deployment.home.path)

    assert done.returncode == 1
    assert "expected none to run" in done.stderr


def test_revoked_hospital_is_refused_at_once_and_told_so(deployment: Deployment) -> None:
    north = deployment.hospitals["north"] / "processes"
    _wait(lambda: (status := supervised.read_status(north)) is not None and status.ready, timeout_s=90)

    revoke(deployment.home.path, "north")

    def is_refused() -> bool:
        status = supervised.read_status(north)
        return status is not None and "refused this hospital's key" in status.line

    _wait(is_refused, timeout_s=20)
    said = deployment.command("status", "--home", deployment.home.path)
    assert "revoked" in said.stdout
    assert said.returncode == 0


def test_killed_half_comes_back_and_a_killed_supervisor_leaves_nothing(deployment: Deployment) -> None:
    folder = deployment.home.processes
    before = supervised.read_status(folder)
    assert before is not None
    superlink, gateway = before.parts
    assert gateway.pid is not None
    os.kill(gateway.pid, 9)

    def is_back() -> bool:
        status = supervised.read_status(folder)
        return status is not None and status.ready and status.parts[1].restarts == gateway.restarts + 1

    _wait(is_back, timeout_s=30)
    os.kill(before.pid, 9)
    _wait(lambda: not marked_processes(before.token), timeout_s=40)
    assert supervised.read_status(folder) is None
    assert superlink.pid is not None
    assert not psutil.pid_exists(superlink.pid)
    started = deployment.command("start", "--home", deployment.home.path, "--detach")
    assert started.returncode == 0, started.stdout
