"""A coordinator and its hospitals on loopback, made and run by the commands of the guides and by nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from client.deployment.landlock import landlock_abi
from client.home import HospitalHome
from server.enrolment.coordinator_home import CoordinatorHome
from shared_model.process import supervision
from shared_model.process.ports import free_ports
from tests.waiting import logs_below, run_to_end, wait_until

BIN = Path(sys.executable).parent
PROXIES = dict.fromkeys(("https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")  # leads nowhere: hipfed goes directly
MARK = "TESTED_DEPLOYMENT"  # a hospital takes what begins with HIPFED_ from its SuperNode
Done = subprocess.CompletedProcess[str]
DETACHED = ("--detach", "--wait-s", "1800")
UNHURRIED: Mapping[str, str] = {"wait-s": "1800", "deadline-s": "3600"}  # settings of a study on a busy machine


@dataclass(frozen=True)
class Deployment:
    """Everything of one deployment lies in one folder: `coordinator`, a home and a data folder for each hospital.

    Attributes:
        folder: holds the homes.
        cohort: holds the data folders and schema.toml.
        names: of the hospitals; each is its data folder's.
        environment: of all processes, marked so that none is lost.
    """

    folder: Path
    cohort: Path
    names: tuple[str, ...]
    environment: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path, cohort: Path, names: Sequence[str]) -> Deployment:
        """Nothing is made yet."""
        root = str(Path(__file__).resolve().parents[2])
        environment = {**os.environ, **PROXIES, MARK: uuid.uuid4().hex, "COLUMNS": "200", "PYTHONPATH": root}
        return cls(folder, cohort, tuple(names), environment)

    @property
    def coordinator(self) -> CoordinatorHome:
        """The coordinator's home."""
        return CoordinatorHome(self.folder / "coordinator")

    def hospital(self, name: str) -> HospitalHome:
        """A hospital's home."""
        return HospitalHome(self.folder / f"{name}-home")

    @property
    def study(self) -> Path:
        """The file that hospitals approve."""
        return self.folder / "STUDY.json"

    def command(self, *words: str | Path) -> Done:
        """Run a command to its end, as long as it or any process of this deployment has something to say."""
        return run_to_end([BIN / words[0], *words[1:]], watched=self.folder, env=self.environment, cwd=self.folder)

    def must(self, *words: str | Path) -> str:
        """Run a command that must succeed; what it printed."""
        done = self.command(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def provision(self) -> None:
        """Make the coordinator, on two free ports."""
        port, superlink_port = free_ports(2)
        home, address = self.coordinator.folder, f"127.0.0.1:{port}"
        self.must(
            *("hipfed-server", "provision", "--home", home, "--address", address),
            *("--superlink-port", str(superlink_port), "--organisation", "Test"),
        )
        file = self.coordinator.settings_file
        file.write_text(file.read_text().replace('"0.0.0.0"', '"127.0.0.1"'))

    def enrol(self, name: str) -> None:
        """Make a hospital's keys, and let it take part."""
        home, address = self.hospital(name), self.coordinator.settings.address
        said = self.must(
            *("hipfed-client", "keygen", "--home", home.folder, "--name", name),
            *("--data", self.cohort / name, "--server", address),
        )
        found = re.search(r"fingerprint of the request: (.*)", said)
        assert found is not None
        self.must(
            *("hipfed-server", "enrol", "--home", self.coordinator.folder, home.request),
            *("--fingerprint", found.group(1)),
        )
        shutil.copy(self.coordinator.ca, home.authority)

    def make_study(self, settings: Mapping[str, object]) -> str:
        """Write the study's file; its hash."""
        options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        self.study.unlink(missing_ok=True)
        schema = self.cohort / "schema.toml"
        self.must("hipfed-server", "study", "--schema", schema, "--out", self.study, *options)
        return str(json.loads(self.study.read_text())["sha256"])

    def approve(self, name: str, sha256: str) -> None:
        """A hospital's yes."""
        self.must("hipfed-client", "approve", "--home", self.hospital(name).folder, self.study, "--yes", sha256)

    def start_coordinator(self) -> None:
        """SuperLink and gateway, in the background."""
        self.must("hipfed-server", "start", "--home", self.coordinator.folder, *DETACHED)

    def start_hospital(self, name: str) -> None:
        """Worker and SuperNode, in the background; the SuperNode under Landlock where the kernel has it."""
        options = () if landlock_abi() else ("--without-separation",)
        self.must("hipfed-client", "start", "--home", self.hospital(name).folder, *DETACHED, *options)

    def run_words(self, out: Path, *, resume: bool = False) -> list[str | Path]:
        """The command that runs the study."""
        words: list[str | Path] = [
            "hipfed-server",
            "run",
            "--home",
            self.coordinator.folder,
            "--study",
            self.study,
            "--out",
            out,
        ]
        return [*words, "--resume"] if resume else words

    def wait(self, holds: Callable[[], bool], *, poll_s: float = 0.2) -> None:
        """Until it holds; fails once no process of this deployment has said anything for long."""
        wait_until(holds, moving=logs_below(self.folder), poll_s=poll_s)

    def wait_connected(self, *names: str) -> None:
        """Until these hospitals are ready."""
        for name in names:
            self.wait(partial(self.is_ready, name))

    def is_ready(self, name: str) -> bool:
        """Whether a hospital says that it is connected and its worker is ready."""
        status = supervision.read_status(self.hospital(name).folder / "processes")
        return status is not None and status.ready

    def stop(self) -> None:
        """End everything."""
        for name in self.names:
            self.command("hipfed-client", "stop", "--home", self.hospital(name).folder)
        self.command("hipfed-server", "stop", "--home", self.coordinator.folder)

    def processes(self) -> list[str]:
        """Command lines of what still runs."""
        return [" ".join(process.cmdline()) for process in self.find("")]

    def owns(self, process: psutil.Process) -> bool:
        """True if a process was started by a command of this deployment."""
        return process.environ().get(MARK) == self.environment[MARK]

    def find(self, word: str) -> list[psutil.Process]:
        """Processes of this deployment whose command line has this word."""
        found = []
        for process in psutil.process_iter():
            try:
                is_alive = self.owns(process) and process.status() != psutil.STATUS_ZOMBIE
                if is_alive and word in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found
