import shutil
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from server.cli import app
from server.enrolment.authority import read_certificate
from server.enrolment.coordinator_home import CoordinatorHome
from server.flower import nodes
from server.flower.nodes import NodeChanges
from shared_model.identity.enrolment_request import EnrolmentRequest
from shared_model.identity.fingerprint import certificate_fingerprint
from shared_model.process.folder_lock import hold_lock
from shared_model.process.supervision import LOCK
from tests.server.enrolment.registry_hands import edit
from tests.server.enrolment.requests_of_hospitals import NOW, ask

Command = Callable[..., Result]
ADDRESS = ("--address", "fed.example.org:9443")


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorHome:
    return CoordinatorHome(tmp_path / "coordinator")


@pytest.fixture
def run(home: CoordinatorHome) -> Command:
    def run(*words: str, answer: str = "") -> Result:
        return CliRunner().invoke(app, [*words, "--home", str(home.folder)], input=answer, env={"COLUMNS": "200"})

    return run


@pytest.fixture
def provisioned(home: CoordinatorHome, run: Command) -> CoordinatorHome:
    """A coordinator whose SuperLink's port is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    result = run("provision", *ADDRESS, "--superlink-port", port)
    assert result.exit_code == 0, result.output
    return home


def fresh(name: str, folder: Path) -> tuple[EnrolmentRequest, str]:
    request = ask(name, now=datetime.now(UTC))
    path = folder / f"{name}.json"
    path.write_bytes(request.to_json())
    return request, str(path)


def test_provision_says_what_to_do_next(home: CoordinatorHome, run: Command) -> None:
    result = run("provision", *ADDRESS, "--name", "10.1.2.3", "--organisation", "North trust")

    assert result.exit_code == 0, result.output
    assert "for fed.example.org, 10.1.2.3, localhost, 127.0.0.1, ::1." in result.output
    certificate = read_certificate(home.authority / "ca.crt")
    assert f"fingerprint of ca.crt: {certificate_fingerprint(certificate)}" in result.output
    assert f"Send {home.folder / 'ca/ca.crt'} to the hospitals" in result.output
    settings = home.read_settings()
    assert (settings.address, settings.organisation) == ("fed.example.org:9443", "North trust")
    assert settings.hosts == ("fed.example.org", "10.1.2.3")
    assert home.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "provision: expected --address HOST:PORT, got none"),
        (("--address", "fed"), "provision, address: expected HOST:PORT"),
        ((*ADDRESS, "--name", "*.org"), "provision, names.0: expected a DNS name"),
        ((*ADDRESS, "--organisation", "x" * 65), "provision, organisation: String should have at most 64"),
        ((*ADDRESS, "--organisation", "a\tb"), "organisation: expected text that can be printed"),
        ((*ADDRESS, "--superlink-port", "70000"), "provision, superlink_port: Input should be less than"),
        (
            (*ADDRESS, "--superlink-port", "9443"),
            "provision, superlink_port: expected another port than the gateway's, got 9443 for both. Choose another.\n",
        ),
    ],
)
def test_provision_is_refused_and_leaves_nothing(
    home: CoordinatorHome, run: Command, words: tuple[str, ...], said: str
) -> None:
    result = run("provision", *words)

    assert result.exit_code == 1
    assert said in result.output
    assert not home.folder.exists()


@pytest.mark.parametrize(
    ("address", "listen"),
    [
        ("[2001:db8::1]:9443", "::"),
        ("192.0.2.1:9443", "0.0.0.0"),  # noqa: S104 - compared with, not bound to
        ("fed.example.org:9443", "0.0.0.0"),  # noqa: S104
    ],
)
def test_gateway_is_to_listen_where_hospitals_look_for_it(
    home: CoordinatorHome, run: Command, address: str, listen: str
) -> None:
    result = run("provision", "--address", address)

    assert result.exit_code == 0, result.output
    assert home.read_settings().listen == listen


def test_provision_never_replaces_an_authority(provisioned: CoordinatorHome, run: Command) -> None:
    before = (provisioned.authority / "ca.key").read_bytes()

    result = run("provision", *ADDRESS)

    assert result.exit_code == 1
    assert "expected a new or an empty folder, got one with ca, coordinator.toml" in result.output
    assert (provisioned.authority / "ca.key").read_bytes() == before


def test_renewal_keeps_authority_and_enrolments(provisioned: CoordinatorHome, run: Command, tmp_path: Path) -> None:
    request, file = fresh("east", tmp_path)
    run("enrol", file, "--fingerprint", request.fingerprint)
    authority = (provisioned.authority / "ca.crt").read_bytes()
    before = read_certificate(provisioned.tls / "server.crt")

    result = run("provision", "--renew", "--days", "100")

    assert result.exit_code == 0, result.output
    assert "Enrolments stay; hospitals need do nothing." in result.output
    assert (provisioned.authority / "ca.crt").read_bytes() == authority
    assert read_certificate(provisioned.tls / "server.crt").serial_number != before.serial_number
    with provisioned.open_registry() as registry:
        assert [hospital.name for hospital in registry.active_hospitals()] == ["east"]
        assert registry.entries[-1].event == "renewed"


def test_renewal_takes_its_address_from_the_settings(provisioned: CoordinatorHome, run: Command) -> None:
    result = run("provision", "--renew", *ADDRESS)

    assert result.exit_code == 1
    assert f"expected address and names in {provisioned.settings_file}" in result.output


@pytest.mark.usefixtures("provisioned")
def test_enrol_asks_whether_the_fingerprint_was_compared(run: Command, tmp_path: Path) -> None:
    request, file = fresh("east", tmp_path)

    refused = [run("enrol", file, answer=answer) for answer in ("n\n", "")]
    listed = run("hospitals")
    taken = run("enrol", file, answer="y\n")

    assert [result.exit_code for result in refused] == [1, 1]
    assert "expected a fingerprint that was compared, got none" in refused[0].output
    assert "0 active of 0" in listed.output
    assert taken.exit_code == 0, taken.output
    assert f"fingerprint: {request.fingerprint}" in taken.output
    assert "east is enrolled.\nThe SuperLink does not run; `hipfed-server start` tells it." in taken.output


@pytest.mark.usefixtures("provisioned")
def test_replayed_forged_and_old_requests_are_refused(run: Command, tmp_path: Path) -> None:
    request, file = fresh("east", tmp_path)
    run("enrol", file, "--fingerprint", request.fingerprint)
    old = ask("west", now=NOW.replace(year=2020))
    (tmp_path / "old.json").write_bytes(old.to_json())
    (tmp_path / "forged.json").write_bytes(old.to_json().replace(b'"west"', b'"north"'))

    replayed = run("enrol", file, "--fingerprint", request.fingerprint)
    late = run("enrol", str(tmp_path / "old.json"), "--fingerprint", old.fingerprint)
    forged = run("enrol", str(tmp_path / "forged.json"), "--fingerprint", old.fingerprint)
    missing = run("enrol", str(tmp_path / "none.json"))

    assert [result.exit_code for result in (replayed, late, forged, missing)] == [1, 1, 1, 1]
    assert "expected one that was not used before" in replayed.output
    assert "expected one of the last 30 days" in late.output
    assert "expected the node key's signature of this request" in forged.output
    assert "none.json: expected an enrolment request, got: No such file" in missing.output


@pytest.mark.usefixtures("provisioned")
def test_revoke_and_list(run: Command, tmp_path: Path) -> None:
    for name in ("east", "west"):
        request, file = fresh(name, tmp_path)
        run("enrol", file, "--fingerprint", request.fingerprint)

    revoked = run("revoke", "east", "--reason", "left the study")
    again = run("revoke", "east", "--reason", "left the study")
    listed = run("hospitals")

    assert revoked.exit_code == 0, revoked.output
    assert "east is revoked. To take part again, it has to make new keys" in revoked.output
    assert again.exit_code == 1
    rows = [line.split() for line in listed.output.splitlines()]
    assert [row[:2] for row in rows[1:]] == [["east", "revoked"], ["west", "active"], ["1", "active"]]
    assert rows[1][-3:] == ["left", "the", "study"]


def test_audit_prints_the_log_and_warns_of_certificates(
    provisioned: CoordinatorHome, run: Command, tmp_path: Path
) -> None:
    request, file = fresh("east", tmp_path)
    run("enrol", file, "--fingerprint", request.fingerprint)
    with provisioned.open_registry() as registry:
        entries = registry.entries

    result = run("audit")
    noted = run("audit", "--noted", f"1:{entries[0].hash}")
    other = run("audit", "--noted", f"2:{entries[0].hash}")
    run("provision", "--renew", "--days", "10")

    assert (result.exit_code, noted.exit_code, other.exit_code) == (0, 0, 1)
    assert f": enrolled east {request.fingerprint}" in result.output
    assert f"The log is whole: 2 entries.\nhead, to be noted elsewhere: 2:{entries[1].hash}" in result.output
    assert "Warning" not in result.output
    assert "Warning: the server's certificate expires in 9 days" in run("audit").output
    (provisioned.tls / "server.crt").unlink()
    without = run("audit")
    assert without.exit_code == 0  # the log is whole
    assert "The log is whole: 3 entries." in without.output
    assert "Warning: " in without.output


@pytest.mark.parametrize(
    "words",
    [("hospitals",), ("audit",), ("revoke", "east", "--reason", "x"), ("enrol", "FILE"), ("provision", "--renew")],
)
def test_every_command_refuses_a_tampered_registry(
    provisioned: CoordinatorHome, run: Command, tmp_path: Path, words: tuple[str, ...]
) -> None:
    _, file = fresh("east", tmp_path)
    edit(provisioned.registry, "INSERT INTO hospitals VALUES ('k', 's', 'evil', 'f', 'now', '', '')")

    result = run(*(file if word == "FILE" else word for word in words), answer="y\n")

    assert result.exit_code == 1
    assert "expected the rows that the audit log gives, got others: evil" in result.output


@pytest.mark.parametrize("words", [("enrol", "FILE"), ("revoke", "east", "--reason", "x"), ("provision", "--renew")])
def test_commands_refuse_an_authority_that_others_may_read(
    provisioned: CoordinatorHome, run: Command, tmp_path: Path, words: tuple[str, ...]
) -> None:
    _, file = fresh("east", tmp_path)
    (provisioned.authority / "ca.key").chmod(0o644)

    result = run(*(file if word == "FILE" else word for word in words), answer="y\n")

    assert result.exit_code == 1
    assert "ca.key: expected mode 0600, got 0644" in result.output


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses at which a SuperLink was told."""
    addresses: list[str] = []

    def sync(_: object, *, address: str, certificate: object) -> NodeChanges:
        assert certificate is not None
        addresses.append(address)
        return NodeChanges(("east",), 0)

    monkeypatch.setattr(nodes, "sync_nodes", sync)
    return addresses


def test_running_superlink_is_told(provisioned: CoordinatorHome, run: Command, tmp_path: Path, told: list[str]) -> None:
    request, file = fresh("east", tmp_path)
    port = provisioned.read_settings().superlink_port

    with socket.create_server(("127.0.0.1", port)), hold_lock(provisioned.processes, LOCK):
        result = run("enrol", file, "--fingerprint", request.fingerprint)

    assert result.exit_code == 0, result.output
    assert "The SuperLink has been told." in result.output
    assert told == [f"127.0.0.1:{port}"]


def test_command_on_a_copied_home_tells_the_running_superlink_nothing(
    provisioned: CoordinatorHome, run: Command, tmp_path: Path, told: list[str]
) -> None:
    request, file = fresh("east", tmp_path)
    run("enrol", file, "--fingerprint", request.fingerprint)
    port = provisioned.read_settings().superlink_port

    with socket.create_server(("127.0.0.1", port)), hold_lock(provisioned.processes, LOCK):
        copy = shutil.copytree(provisioned.folder, tmp_path / "copy")
        result = CliRunner().invoke(app, ["revoke", "--home", str(copy), "east", "--reason", "a trial"])

    assert (copy / "processes" / LOCK).is_file()
    assert result.exit_code == 0, result.output
    assert "The SuperLink does not run; `hipfed-server start` tells it." in result.output
    assert told == []


@pytest.mark.parametrize("words", [("hospitals",), ("audit",), ("enrol", "x.json"), ("provision", "--renew")])
def test_commands_say_when_there_is_no_coordinator_here(run: Command, words: tuple[str, ...]) -> None:
    result = run(*words)

    assert result.exit_code == 1
    assert "hipfed-server provision" in result.output


def test_home_that_others_may_change_is_refused(provisioned: CoordinatorHome, run: Command) -> None:
    provisioned.folder.chmod(0o770)

    result = run("hospitals")

    assert result.exit_code == 1
    assert "that nobody else may change" in result.output
