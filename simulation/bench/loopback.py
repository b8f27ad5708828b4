"""A coordinator and its hospitals on this machine, made and run by the commands of the guides."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.deployment.landlock import landlock_abi
from client.home import HospitalHome
from server.enrolment.coordinator_home import CoordinatorHome
from shared_model.config import Scalar
from shared_model.errors import StudyError
from shared_model.process import supervision
from shared_model.process.ports import free_ports

COMMAND_S = 300.0
CONNECT_S = 120.0
_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Loopback:
    """One coordinator, and a hospital for each folder of a cohort.

    Attributes:
        folder: holds the homes, named like their hospitals, and the coordinator's.
        cohort: schema.toml and one folder a hospital.
        names: of the hospitals.
    """

    folder: Path
    cohort: Path
    names: tuple[str, ...]

    @property
    def coordinator(self) -> CoordinatorHome:
        """The coordinator's home."""
        return CoordinatorHome(self.folder / "coordinator")

    def hospital(self, name: str) -> HospitalHome:
        """A hospital's home."""
        return HospitalHome(self.folder / name)

    def make(self) -> None:
        """Provision, make keys, enrol."""
        port, superlink_port = free_ports(2)
        home = self.coordinator
        _say(
            *("hipfed-server", "provision", "--home", home.folder, "--address", f"127.0.0.1:{port}"),
            *("--superlink-port", superlink_port),
        )
        text = home.settings_file.read_text(encoding="utf-8")
        home.settings_file.write_text(re.sub(r'(?m)^listen = ".*"', 'listen = "127.0.0.1"', text), encoding="utf-8")
        for name in self.names:
            own = self.hospital(name)
            said = _say(
                *("hipfed-client", "keygen", "--home", own.folder, "--name", name),
                *("--data", self.cohort / name, "--server", f"127.0.0.1:{port}"),
            )
            fingerprint = said.partition("fingerprint of the request: ")[2].partition("\n")[0]
            _say("hipfed-server", "enrol", "--home", home.folder, own.request, "--fingerprint", fingerprint)
            shutil.copy(home.ca, own.authority)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Coordinator and hospitals, each hospital connected and warm; all of them end with the block.

        The SuperNodes run under Landlock where the kernel has it.
        """
        options = () if landlock_abi() else ("--without-separation",)
        try:
            _say("hipfed-server", "start", "--home", self.coordinator.folder, "--detach")
            for name in self.names:
                _say("hipfed-client", "start", "--home", self.hospital(name).folder, "--detach", *options)
            for name in self.names:
                _wait(lambda name=name: self._is_ready(name), what=f"{name} to connect")  # type: ignore[misc]
            yield
        finally:
            self._stop()

    def _stop(self) -> None:
        """End everything; whatever cannot be ended is told after the rest was.

        Raises:
            StudyError: something could not be ended.
        """
        commands = [("hipfed-client", "stop", "--home", self.hospital(name).folder) for name in self.names]
        failures = []
        for words in (*commands, ("hipfed-server", "stop", "--home", self.coordinator.folder)):
            try:
                _say(*words)
            except StudyError as error:
                failures.append(str(error))
        if failures:
            raise StudyError("\n".join(failures))

    def run_study(self, settings: Mapping[str, Scalar]) -> Path:
        """Make a study, approve it everywhere and run it; its folder."""
        study, out = self.folder / "STUDY.json", self.folder / "run"
        options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        _say("hipfed-server", "study", "--schema", self.cohort / "schema.toml", "--out", study, *options)
        sha256 = json.loads(study.read_text(encoding="utf-8"))["sha256"]
        for name in self.names:
            _say("hipfed-client", "approve", "--home", self.hospital(name).folder, study, "--yes", sha256)
        words = ("hipfed-server", "run", "--home", self.coordinator.folder, "--study", study, "--out", out)
        _say(*words, timeout_s=None)
        return out

    def _is_ready(self, name: str) -> bool:
        status = supervision.read_status(self.hospital(name).folder / "processes")
        return status is not None and status.ready


def _say(*words: object, timeout_s: float | None = COMMAND_S) -> str:
    """What a command printed. One that is broken off is asked to end, and waited for: a run then stops its app.

    Raises:
        StudyError: it failed.
    """
    program, *rest = map(str, words)
    process = subprocess.Popen(  # noqa: S603 - our own commands
        [str(_BIN / program), *rest], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except BaseException:
        process.terminate()
        process.communicate()
        raise
    if process.returncode:
        raise StudyError(
            f"{program} {rest[0]}: expected it to succeed, got exit status {process.returncode}: {_end(output)} "
            f"{_end(errors)}"
        )
    return output


def _end(text: str) -> str:
    return text.strip()[-1000:]


def _wait(condition: Callable[[], bool], *, what: str, timeout_s: float = CONNECT_S) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise StudyError(f"deployment: expected {what} within {timeout_s:g} s, got nothing.")
        time.sleep(0.2)
