"""One deployment of three hospitals with every modality serves all faults; starting it takes about a minute."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shared_model.config import parse_settings
from shared_model.identity.address import split_address
from shared_model.process.ports import free_ports
from tests.end_to_end.chaos.throttle import ThrottlingProxy
from tests.end_to_end.deployed import Deployment
from tests.server.small_cohort import run_small_study, write_small_cohort

HOSPITALS = ("east", "north", "south")
FAR = "south"  # the hospital at the end of a line that can be slow
SETTINGS: Mapping[str, object] = {
    "rounds-unimodal": "1",
    "rounds-fusion": "2",
    "device": "cpu",
    "trust-coordinator": "true",  # hospitals are so small
    "explain": "modalities",
    "expected-sites": "3",
}


@dataclass(frozen=True)
class Ground:
    """Where faults are made.

    Attributes:
        deployment: connected.
        proxy: between the far hospital and the gateway.
        expected: run folder of the same study, uninterrupted, in one process.
        studies: content of the study's file by its settings, for those that all hospitals have approved.
    """

    deployment: Deployment
    proxy: ThrottlingProxy
    expected: Path
    studies: dict[str, str] = field(default_factory=dict)

    def use(self, settings: Mapping[str, object]) -> None:
        """Make a study with these settings besides the usual ones, and let all hospitals approve it."""
        if known := self.studies.get(repr(settings)):
            self.deployment.study.write_text(known)
            return
        sha256 = self.deployment.make_study({**SETTINGS, **settings})
        for name in self.deployment.names:
            self.deployment.approve(name, sha256)
        self.studies[repr(settings)] = self.deployment.study.read_text()

    def expect(self, settings: Mapping[str, object]) -> Path:
        """Run folder of the study with these settings, uninterrupted, in one process."""
        name = "-".join(f"{key}={value}" for key, value in settings.items()) or "usual"
        out = self.expected.with_name(name)
        if not out.exists():
            merged = {key: str(value) for key, value in {**SETTINGS, **settings}.items()}
            run_small_study(self.deployment.cohort, out, settings=parse_settings(merged))
        return out


@contextmanager
def standing(folder: Path, *, image_names: Sequence[str] = ("hip",)) -> Iterator[Ground]:
    """Connected hospitals; nothing is left behind at the end."""
    cohort = write_small_cohort(folder / "cohort", hospitals=3, series=True, images=True, image_names=image_names)
    deployment = Deployment.of(folder, cohort, HOSPITALS)
    proxy = None
    try:
        deployment.provision()
        for name in HOSPITALS:
            deployment.enrol(name)
        address = deployment.coordinator.settings.address
        (port,) = free_ports(1)
        proxy = ThrottlingProxy(split_address(address), port=port)
        settings = deployment.hospital(FAR).settings_file
        settings.write_text(settings.read_text().replace(address, f"127.0.0.1:{port}"))
        deployment.start_coordinator()
        for name in HOSPITALS:
            deployment.start_hospital(name)
        yield Ground(deployment, proxy, folder / "expected" / "usual")
    finally:
        deployment.stop()
        if proxy is not None:
            proxy.close()
    assert deployment.processes() == []


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """The deployment that serves most faults."""
    with standing(tmp_path_factory.mktemp("chaos")) as made:
        made.use({})
        made.expect({})
        yield made


@pytest.fixture
def usual(ground: Ground) -> Ground:
    """The usual study, every hospital connected, the line as fast as it can be."""
    ground.proxy.bytes_per_s = None
    ground.deployment.wait_connected(*HOSPITALS)
    ground.use({})
    return ground
