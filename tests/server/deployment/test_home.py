"""The coordinator's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.deployment.home import open_home
from shared_model.errors import SettingsError
from tests.server.coordinator_home import make_home


def test_home_knows_its_ports(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")

    assert home.config.superlink == f"127.0.0.1:{home.config.superlink_port}"
    assert home.config.address == f"127.0.0.1:{home.config.port}"


def test_gateway_may_listen_on_another_port_than_the_hospitals_use(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with (home.path / "coordinator.toml").open("a") as file:
        file.write("listen_port = 8443\n")

    assert open_home(home.path).config.port == 8443


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('address = "host"\nsuperlink_port = 1\n', "address: Value error, expected HOST:PORT"),
        ('address = "host:70000"\nsuperlink_port = 1\n', "address: "),
        ('address = "host:1"\nsuperlink_port = 0\n', "superlink_port: "),
        ("superlink_port = 1\n", "address: Field required"),
        ("address", "expected TOML"),
    ],
)
def test_settings_that_are_wrong_are_named(tmp_path: Path, content: str, reason: str) -> None:
    home = make_home(tmp_path / "home")
    (home.path / "coordinator.toml").write_text(content)

    with pytest.raises(SettingsError, match=reason):
        open_home(home.path)


def test_folder_that_others_can_open_is_refused(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    home.path.chmod(0o750)

    with pytest.raises(SettingsError, match=r"got mode 0750\. Say `chmod 700"):
        open_home(home.path)


def test_folder_that_is_no_coordinators_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="hipfed-server provision"):
        open_home(tmp_path)
