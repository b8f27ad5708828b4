"""What the coordinator's commands say, and their exit status."""

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from server.cli import app
from server.enrolment.authority import issue_server_certificate, open_authority
from server.enrolment.coordinator_home import CoordinatorHome
from server.run_folder.folder import RunFolder
from server.stopping import Stopped
from shared_model.identity.key_files import read_ec_key
from shared_model.process import supervision
from shared_model.process.folder_lock import hold_lock
from tests.server.coordinator_home import make_home


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorHome:
    return make_home(tmp_path / "home")


def _invoke(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "300"})
    return done.exit_code, done.output


def test_status_of_a_coordinator_that_does_not_run_fails(home: CoordinatorHome) -> None:
    code, screen = _invoke("status", "--home", home.folder)

    assert code == 1
    assert screen.startswith("not running\nsuperlink: down\ngateway: down\nno hospital is enrolled\n")


def test_stop_of_a_coordinator_that_does_not_run_is_done(home: CoordinatorHome) -> None:
    assert _invoke("stop", "--home", home.folder) == (0, "not running\n")


@pytest.mark.parametrize(("is_ready", "code"), [(True, 0), (False, 1)])
def test_detached_start_succeeds_only_when_both_are_up(
    *, home: CoordinatorHome, monkeypatch: pytest.MonkeyPatch, is_ready: bool, code: int
) -> None:
    monkeypatch.setattr(supervision, "start", lambda *_, **__: is_ready)

    assert _invoke("start", "--home", home.folder, "--detach")[0] == code


@pytest.mark.parametrize("key", ["superlink_port", "listen_port"])
@pytest.mark.parametrize("detach", [(), ("--detach",)])
def test_start_is_refused_before_anything_starts_where_a_port_is_taken(
    home: CoordinatorHome, monkeypatch: pytest.MonkeyPatch, key: str, detach: tuple[str, ...]
) -> None:
    monkeypatch.setattr(supervision, "start", lambda *_, **__: pytest.fail("something was started"))
    port = home.settings.superlink_port if key == "superlink_port" else home.settings.port

    with socket.create_server(("127.0.0.1", port)):
        code, screen = _invoke("start", "--home", home.folder, *detach)

    said = " ".join(screen.split())
    assert code == 1
    assert f"port {port} of this machine: expected it to be free, got it taken by another program." in said
    assert f"set another {key} in {home.settings_file}" in said


@pytest.mark.parametrize("detach", [(), ("--detach",)])
def test_start_with_an_expired_certificate_says_so_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, detach: tuple[str, ...]
) -> None:
    monkeypatch.setattr(supervision, "start", lambda *_, **__: pytest.fail("something was started"))
    home = make_home(tmp_path / "home")
    (home.tls / "server.crt").write_bytes(_expired(home))

    code, screen = _invoke("start", "--home", home.folder, *detach)

    assert code == 1
    assert "expected a certificate that is valid, got one that ended" in screen
    assert "provision --renew" in screen


def _expired(home: CoordinatorHome) -> bytes:
    """A certificate of the server's key that ended yesterday."""
    now = datetime.now(UTC)
    authority = open_authority(home.authority, now=now)
    key = read_ec_key(home.tls / "server.key")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hipfed coordinator")])
    builder = x509.CertificateBuilder(
        issuer_name=authority.certificate.subject,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=now - timedelta(days=9),
        not_valid_after=now - timedelta(days=1),
    )
    return builder.sign(authority.key, SHA256()).public_bytes(Encoding.PEM)


def test_start_with_a_certificate_that_ends_soon_warns_and_starts(
    home: CoordinatorHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "start", lambda *_, **__: True)
    now = datetime.now(UTC)
    authority = open_authority(home.authority, now=now)
    issue_server_certificate(home.tls, authority, ["127.0.0.1"], now=now, days=10)

    code, screen = _invoke("start", "--home", home.folder, "--detach")

    assert code == 0
    assert "WARNING: the server's certificate expires in 9 days" in screen


def test_second_start_is_told_that_the_first_runs_and_not_that_ports_are_taken(home: CoordinatorHome) -> None:
    with (
        hold_lock(home.processes, supervision.LOCK),
        socket.create_server(("127.0.0.1", home.settings.superlink_port)),
    ):
        code, screen = _invoke("start", "--home", home.folder)

    assert code == 1
    assert "expected no `hipfed-server start` to run for it" in screen


@pytest.mark.parametrize("command", ["start", "status", "stop"])
def test_folder_that_is_no_coordinators_is_refused_without_a_traceback(tmp_path: Path, command: str) -> None:
    code, screen = _invoke(command, "--home", tmp_path / "none")

    assert code == 1
    assert "expected a settings file, got: No such file or directory" in screen
    assert "Traceback" not in screen


@pytest.mark.parametrize(
    ("stopped", "state", "code", "words"),
    [
        (KeyboardInterrupt(), "interrupted", 130, "interrupted; continue with --resume"),
        (Stopped(143), "interrupted", 143, "interrupted; continue with --resume"),
        (KeyboardInterrupt(), "completed", 0, "the run had finished"),
    ],
)
def test_run_that_was_stopped_says_how_it_stands(
    home: CoordinatorHome,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stopped: BaseException,
    state: str,
    code: int,
    words: str,
) -> None:
    (tmp_path / "STUDY.json").touch()

    def run(*_: object, **__: object) -> None:
        RunFolder(tmp_path / "run").write_status(state)  # type: ignore[arg-type]
        raise stopped

    monkeypatch.setattr("server.deployment.run.run_deployed", run)

    got, screen = _invoke("run", "--home", home.folder, "--study", tmp_path / "STUDY.json", "--out", tmp_path / "run")

    assert got == code
    assert words in screen
