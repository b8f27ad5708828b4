"""The gateway's word on itself, and why there is none."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.deployment.gateway import Gateway
from shared_model.identity.coordinator_status import UnreachableError, fetch_status
from shared_model.process.ports import free_ports
from shared_model.protocol.messages import PROTOCOL_VERSION
from tests.server.coordinator_home import make_home
from tests.server.running_gateway import FakeSuperLink, serve_gateway, serve_superlink, serving


def test_gateway_tells_its_versions_and_clock(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    gateway = Gateway(home.settings.superlink, ca=home.ca, find_hospital=lambda _: None, seen=lambda *_: None)
    before = datetime.now(UTC)
    with serving(serve_gateway(home, gateway)):
        status = fetch_status("127.0.0.1", home.settings.port, home.ca)

        make_home(tmp_path / "other")  # of another authority
        with pytest.raises(UnreachableError, match="expected a certificate of our coordinator, got another"):
            fetch_status("127.0.0.1", home.settings.port, tmp_path / "other" / "ca" / "ca.crt")

    assert status.protocol == PROTOCOL_VERSION
    assert before - timedelta(seconds=1) <= status.time <= datetime.now(UTC)  # told in whole seconds


def test_other_program_at_the_address_is_told_as_such(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with (
        serving(serve_superlink(home, FakeSuperLink())),
        pytest.raises(UnreachableError, match="expected a hipfed coordinator, got another program's answer"),
    ):
        fetch_status("127.0.0.1", home.settings.superlink_port, home.ca)


def test_nobody_at_the_address_is_told_as_such(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    (port,) = free_ports(1)

    with pytest.raises(UnreachableError, match=r"expected the coordinator to answer, got: .*Connection refused"):
        fetch_status("127.0.0.1", port, home.ca)


def test_missing_authority_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"ca\.crt: expected the coordinator's CA certificate, got none"):
        fetch_status("127.0.0.1", 1, tmp_path / "ca.crt")
