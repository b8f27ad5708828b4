"""The coordinator's two processes, as they are started."""

from base64 import b64decode
from pathlib import Path

import pytest

import server.deployment.services
from server.deployment.gateway_process import find_active
from server.deployment.services import GatewayPart, SuperLinkPart, prepare, service_environment
from server.enrolment.coordinator_home import CoordinatorHome
from shared_model.errors import SettingsError
from tests.server.coordinator_home import enrol, make_home, revoke
from tests.server.running_gateway import signed_headers


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorHome:
    return make_home(tmp_path / "home", ["north"])


def test_superlink_listens_on_loopback_only_with_tls_node_authentication_and_its_database(
    home: CoordinatorHome,
) -> None:
    command = list(SuperLinkPart(home).command())

    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--port") + 1] == str(home.settings.superlink_port)
    assert command[command.index("--database") + 1] == str(home.folder / "superlink" / "state.db")
    assert "--insecure" not in command
    for option in ("--enable-supernode-auth", "--disable-runtime-dependency-installation", "--ssl-ca-certfile"):
        assert option in command


def test_environment_is_flowers_own_and_not_the_users(home: CoordinatorHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_INTERNAL_GRPC_CONTROL_API", "1")
    monkeypatch.setenv("FLWR_HOME", "/of/the/user")
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "0")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    monkeypatch.setenv("no_proxy", "example.org")

    environment = service_environment(home)

    assert "FLWR_INTERNAL_GRPC_CONTROL_API" not in environment
    assert environment["FLWR_HOME"] == str(home.folder / "flower")
    assert not [name for name in environment if "proxy" in name.lower()]
    for name in ("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "FLWR_DISABLE_UPDATE_CHECK"):
        assert environment[name] == "1"
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"


def test_folders_of_the_processes_are_for_their_owner_only(home: CoordinatorHome) -> None:
    prepare(home)

    for folder in (home.database.parent, home.flower, home.processes):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert str(home.ca) in (home.flower / "config.toml").read_text()


@pytest.mark.parametrize("part", [SuperLinkPart, GatewayPart])
def test_port_that_is_taken_is_told_in_plain_words(
    home: CoordinatorHome, part: type[SuperLinkPart | GatewayPart]
) -> None:
    made = part(home)
    made.observe("ERROR: [Errno 98] error while attempting to bind on address ('127.0.0.1', 1): address already in use")

    ending = made.explain(1)

    assert f"expected port {made.port} to be free" in ending.reason
    assert ending.min_wait_s > 0


def test_nodes_that_flower_refuses_do_not_keep_the_gateway_from_starting(
    home: CoordinatorHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise SettingsError("north: expected Flower to register its key, got: no.")

    monkeypatch.setattr(server.deployment.services, "sync_nodes", refuse)

    assert SuperLinkPart(home).made_ready() == "north: expected Flower to register its key, got: no."


def test_hospital_is_found_by_its_key_while_it_is_enrolled(home: CoordinatorHome) -> None:
    key = b64decode(signed_headers(enrol(home.folder, "south"))["flwr-public-key"])

    with home.open_registry() as registry:
        assert find_active(registry, key) == "south"
        assert find_active(registry, b"another") is None
        revoke(home.folder, "south")
        assert find_active(registry, key) is None


@pytest.mark.parametrize(
    ("listen", "asked"),
    [
        ("0.0.0.0", "127.0.0.1"),  # noqa: S104 - compared with, not bound to
        ("::", "::1"),
        ("::1", "::1"),
        ("192.0.2.1", "192.0.2.1"),
    ],
)
def test_gateway_is_asked_whether_it_is_ready_where_it_listens(
    home: CoordinatorHome, monkeypatch: pytest.MonkeyPatch, listen: str, asked: str
) -> None:
    hosts: list[str] = []
    monkeypatch.setattr(server.deployment.services, "fetch_status", lambda host, *_, **__: hosts.append(host))
    text = home.settings_file.read_text()
    home.settings_file.write_text(text.replace('listen = "127.0.0.1"', f'listen = "{listen}"'))

    assert GatewayPart(CoordinatorHome(home.folder)).is_ready()
    assert hosts == [asked]
