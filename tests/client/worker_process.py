"""`hipfed-client worker` as a process of its own, and the folders of the hospital that it works for."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.enrolment.approvals import APPROVALS_FILE, Approvals
from client.site import Site
from shared_model.config import Settings
from shared_model.protocol.messages import PROTOCOL_VERSION
from shared_model.protocol.study_hash import StudyFile
from tests.server.small_cohort import small_settings, write_small_cohort
from tests.waiting import PATIENCE_S

COMMAND = Path(sys.executable).parent / "hipfed-client"


@dataclass(frozen=True)
class HospitalFolders:
    """One hospital on a disk, all of it closed to other users but for the courier's folder and the socket's."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def data(self) -> Path:
        return self.root / "cohort" / "east"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def socket(self) -> Path:
        return self.root / "socket" / "worker.sock"

    @property
    def courier(self) -> Path:
        return self.root / "courier"

    @property
    def approvals(self) -> Approvals:
        return Approvals(self.home / APPROVALS_FILE)

    @property
    def site(self) -> Site:
        return Site("east", self.data, self.cache)

    def approve(self, settings: Settings) -> None:
        """Approve a study of this hospital's schema."""
        self.approvals.add(StudyFile.of(self.site.schema, settings, protocol=PROTOCOL_VERSION))

    def worker_command(self, *options: str) -> list[str]:
        given = {"--data": self.data, "--name": "east", "--socket": self.socket, "--cache": self.cache}
        words = [str(word) for option in {**given, "--approvals": self.approvals.path}.items() for word in option]
        return [str(COMMAND), "worker", *words, *options]


def make_hospital_folders(root: Path) -> HospitalFolders:
    """A hospital of 60 patients that approved the study of `small_settings`, with keys."""
    folders = HospitalFolders(root)
    write_small_cohort(root / "cohort", hospitals=1, series=True)
    for folder in (folders.home, folders.home / "keys", folders.cache, root / "cohort", folders.data):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o700)
    (folders.home / "keys" / "signing").write_text("PRIVATE KEY")
    (folders.home / "keys" / "signing").chmod(0o600)
    folders.courier.mkdir()
    folders.approve(small_settings())
    return folders


@contextmanager
def worker_process(command: list[str], *, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process, once it listens; it is ended at the end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, env=environment, cwd="/")
    try:
        assert process.stderr is not None
        said = b""
        for line in process.stderr:
            said += line
            if b"listening" in line:
                break
        assert b"listening" in said, said.decode()
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
