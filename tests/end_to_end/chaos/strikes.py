"""Striking a deployment at chosen steps of a run, from outside: by its logs and its processes."""

import json
import os
import random
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

import psutil

from client.flower.supernode import COURIER, LAUNCHER
from shared_model.process import supervision
from tests.end_to_end.deployed import BIN, Deployment, Done
from tests.waiting import PATIENCE_S, wait_until

RESULTS = ("model.safetensors", "metrics.json", "explanations.json")
QUESTION = re.compile(r"Receiving: (\S+) message")


@dataclass(frozen=True)
class Step:
    """A step of the protocol, by the question that reaches a hospital in it.

    Attributes:
        name: for people.
        kind: message kind.
        nth: of the questions of this kind in one run from its beginning, counted from 1.
    """

    name: str
    kind: str
    nth: int = 1


# Of a run with one unimodal round and two fusion rounds; a phase ends with the validation of its last model.
STEPS = (
    Step("handshake", "query.handshake"),
    Step("quality reference", "query.reference"),
    Step("quality", "query.quality"),
    Step("statistics", "query.statistics"),
    Step("components", "query.components"),
    Step("unimodal", "train"),
    Step("fusion, first round", "train", 2),
    Step("fusion, second round", "train", 3),
    Step("validation", "evaluate", 2),
    Step("test", "evaluate", 3),
    Step("background", "query.background"),
    Step("explain", "query.explain"),
    Step("spread", "query.spread"),
)


@dataclass
class StudyRun:
    """`hipfed-server run` under way.

    Attributes:
        deployment: where it runs.
        out: its run folder.
        process: of the command.
        output: what it says.
        resumed: whether it goes on with an earlier one.
        logs: by hospital, where its SuperNode's log ended when the run began.
    """

    deployment: Deployment
    out: Path
    process: subprocess.Popen[str]
    output: IO[str]
    resumed: bool
    logs: dict[str, int] = field(default_factory=dict)

    def questions(self, hospital: str) -> list[str]:
        """Kinds of the questions that a hospital's SuperNode has received in this run."""
        content = supernode_log(self.deployment, hospital).read_bytes()[self.logs[hospital] :]
        return QUESTION.findall(content.decode(errors="replace"))

    def wait_for(self, kind: str, nth: int, *, hospital: str) -> None:
        """Until the hospital has received the nth question of a kind; fails if the run ends before."""

        def is_there() -> bool:
            return self.questions(hospital).count(kind) >= nth or self.process.poll() is not None

        self.deployment.wait(is_there, poll_s=0.02)
        assert self.questions(hospital).count(kind) >= nth, f"no {kind} {nth}: {self.finish()}"

    def finish(self) -> Done:
        """Wait for the command's end."""
        self.deployment.wait(lambda: self.process.poll() is not None)
        self.output.seek(0)
        return subprocess.CompletedProcess(self.process.args, self.process.returncode, self.output.read(), "")

    def kill(self) -> None:
        """SIGKILL of the command and of the ServerApp, as a machine's end would."""
        for process in server_apps(self.deployment):
            strike(process)
        self.process.kill()
        self.process.wait()


@contextmanager
def running(deployment: Deployment, out: Path, *, resume: bool = False) -> Iterator[StudyRun]:
    """Start the study; the command is ended where the block is left early."""
    command, *words = deployment.run_words(out, resume=resume)
    logs = {name: log_end(supernode_log(deployment, name)) for name in deployment.names}
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(
            [BIN / command, *words],
            env=deployment.environment,
            cwd=deployment.folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        try:
            yield StudyRun(deployment, out, process, output, resume, logs)
        finally:
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=PATIENCE_S)
                process.kill()


def supernode_log(deployment: Deployment, hospital: str) -> Path:
    """What a hospital's SuperNode says."""
    return deployment.hospital(hospital).folder / "processes" / "supernode.log"


def log_end(log: Path) -> int:
    """Its length."""
    return log.stat().st_size if log.exists() else 0


def hospital_part(deployment: Deployment, hospital: str, part: str) -> psutil.Process:
    """The worker or the supernode of a hospital."""
    return _part(deployment.hospital(hospital).folder / "processes", part)


def coordinator_part(deployment: Deployment, part: str) -> psutil.Process:
    """The superlink or the gateway."""
    return _part(deployment.coordinator.processes, part)


def supervisor(folder: Path) -> psutil.Process:
    """The process that looks after a site's parts."""
    status = supervision.read_status(folder)
    assert status is not None
    return psutil.Process(status.pid)


def _part(folder: Path, name: str) -> psutil.Process:
    """The part's process; one that was struck before is waited for, as it is started again after a growing pause."""
    found: list[int] = []

    def has_process() -> bool:
        status = supervision.read_status(folder)
        assert status is not None
        found[:] = [part.pid for part in status.parts if part.name == name and part.pid is not None]
        return bool(found) and psutil.pid_exists(found[0])

    wait_until(has_process)
    return psutil.Process(found[0])


def server_apps(deployment: Deployment) -> list[psutil.Process]:
    """The ServerApp's processes."""
    return deployment.find("flwr-serverapp")


def client_apps(deployment: Deployment, hospital: str) -> list[psutil.Process]:
    """The ClientApp's processes at a hospital, while a question is answered."""
    home = str(deployment.hospital(hospital).folder)
    return [process for process in deployment.find(home) if _is_named(process, COURIER)]


def launcher(deployment: Deployment, hospital: str) -> psutil.Process:
    """The process that a hospital's ClientApps are copies of."""
    home = str(deployment.hospital(hospital).folder)
    (found,) = [process for process in deployment.find(home) if _is_named(process, LAUNCHER)]
    return found


def _is_named(process: psutil.Process, name: str) -> bool:
    try:
        return process.name() == name
    except psutil.NoSuchProcess:
        return False


def strike(process: psutil.Process, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process that may have ended."""
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


@contextmanager
def stopped(*processes: psutil.Process) -> Iterator[None]:
    """SIGSTOP of processes, and SIGCONT at the end."""
    for process in processes:
        strike(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            strike(process, signal.SIGCONT)


def wait_for_client_apps(deployment: Deployment, hospital: str) -> list[psutil.Process]:
    """The ClientApp's processes, as soon as they start; a moment later they take the question."""
    found: list[psutil.Process] = []

    def has_started() -> bool:
        found[:] = client_apps(deployment, hospital)
        return bool(found)

    wait_until(has_started, poll_s=0.02)
    return found


@contextmanager
def client_app_with_question(deployment: Deployment, *hospitals: str) -> Iterator[list[psutil.Process]]:
    """The first one's ClientApp's processes; each hospital's has handed its question to a worker that stands still."""
    folders = [deployment.hospital(name).folder for name in hospitals]
    # The supervisor stands still too: it asks the worker's socket whether the worker is there.
    supervisors = [supervisor(folder / "processes") for folder in folders]
    with stopped(*supervisors, *(hospital_part(deployment, name, "worker") for name in hospitals)):
        processes = [wait_for_client_apps(deployment, name) for name in hospitals]
        for folder in folders:
            wait_until(partial(_is_waiting_in, folder / "worker"), poll_s=0.02)
        yield processes[0]


def _is_waiting_in(folder: Path) -> bool:
    """Whether somebody has connected to a Unix socket of a folder that does not accept; it may have been renamed."""
    connecting = "02"  # linux/net.h: SS_CONNECTING
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return any(row[5] == connecting and Path(row[-1]).parent == folder for row in rows)


def kill_worker_at_work(deployment: Deployment, hospital: str, rng: random.Random) -> None:
    """SIGKILL while a question is on its way to it, with it, or just answered."""
    wait_for_client_apps(deployment, hospital)
    time.sleep(rng.uniform(0.0, 1.5))
    strike(hospital_part(deployment, hospital, "worker"))


def assert_same_results(run: Path, expected: Path) -> None:
    """The files of an uninterrupted run, to the byte."""
    for name in RESULTS:
        assert (run / name).read_bytes() == (expected / name).read_bytes(), name


def assert_completed(done: Done, run: Path) -> None:
    """The exit status and status.json agree that the run ended well."""
    assert done.returncode == 0, done.stdout
    assert json.loads((run / "status.json").read_text()) == {"state": "completed", "reason": ""}


def read_lines(run: Path) -> list[dict[str, object]]:
    """rounds.jsonl."""
    return [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]


def assert_no_round_lost(run: Path, names: Sequence[str]) -> None:
    """Every hospital's answer counted in every round."""
    for line in read_lines(run):
        assert line["answered"] == sorted(names), line


def kill_tree_of(folder: Path, *, parts: Sequence[str]) -> None:
    """SIGKILL of a site's supervisor and its parts, in this order."""
    victims = [supervisor(folder), *(_part(folder, part) for part in parts)]
    for victim in victims:
        os.kill(victim.pid, signal.SIGKILL)
