from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.enrolment.keygen import make_hospital
from client.home import HospitalHome, HospitalSettings
from server.enrolment.authority import issue_server_certificate, make_authority
from tests.server.small_cohort import write_small_cohort

NOW = datetime.now(UTC)


@pytest.fixture(scope="session")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates: ca, tls, expired, elsewhere (another host), and another authority's in other-ca, other-tls."""
    folder = tmp_path_factory.mktemp("coordinator")
    former = NOW - timedelta(days=400)
    authority = make_authority(folder / "ca", organisation="North trust", now=former)
    issue_server_certificate(folder / "tls", authority, ("127.0.0.1",), now=NOW)
    issue_server_certificate(folder / "expired", authority, ("127.0.0.1",), now=former, days=399)
    other = make_authority(folder / "other-ca", organisation="Security appliance", now=former)
    issue_server_certificate(folder / "other-tls", other, ("127.0.0.1",), now=NOW)
    return folder


@pytest.fixture
def home(tmp_path: Path, coordinator: Path) -> HospitalHome:
    """A hospital that keygen made, with the coordinator's ca.crt and a data folder."""
    cohort = write_small_cohort(tmp_path / "cohort", hospitals=1)
    place = HospitalHome(tmp_path / "home")
    settings = HospitalSettings(
        name="east", data=str(cohort / "east"), server="127.0.0.1:1", cache=str(tmp_path / "home" / "cache")
    )
    (cohort / "east").chmod(0o750)
    make_hospital(place, settings, now=NOW)
    place.authority.write_bytes((coordinator / "ca" / "ca.crt").read_bytes())
    return place
