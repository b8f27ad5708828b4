"""A coordinator's authority, and an empty registry for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.enrolment.authority import Authority, make_authority, open_authority
from server.enrolment.hospitals import EnrolledHospital
from server.enrolment.registry import Registry
from tests.server.enrolment.registry_hands import fill
from tests.server.enrolment.requests_of_hospitals import NOW


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of ca.crt and ca.key."""
    folder = tmp_path_factory.mktemp("authority") / "ca"
    make_authority(folder, organisation="North trust", now=NOW)
    return folder


@pytest.fixture(scope="session")
def authority(ca: Path) -> Authority:
    return open_authority(ca, now=NOW)


@pytest.fixture
def registry_file(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


@pytest.fixture
def registry(registry_file: Path, authority: Authority) -> Iterator[Registry]:
    with Registry.create(registry_file, authority, now=NOW) as registry:
        yield registry


@pytest.fixture
def three(registry: Registry, authority: Authority) -> Registry:
    """East and west are active, south was revoked: five entries."""
    fill(registry, authority)
    return registry


@pytest.fixture(scope="session")
def registry_of_three(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> tuple[Path, tuple[EnrolledHospital, ...]]:
    """The file of such a registry, which no test changes, and what it holds."""
    path = tmp_path_factory.mktemp("three") / "registry.db"
    with Registry.create(path, authority, now=NOW) as registry:
        fill(registry, authority)
        return path, registry.hospitals
