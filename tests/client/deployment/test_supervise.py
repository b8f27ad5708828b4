"""The hospital as a service: which processes, and what the commands say."""

import os
import site
import socket
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

import client.deployment.supervise
from client.cli import app
from client.commands.deployment import _has_begun
from client.deployment.courier_place import courier_place, prepare_courier
from client.deployment.landlock import landlock_abi
from client.deployment.separation import FAILED, system_devices
from client.deployment.supervise import WorkerPart, separation
from client.enrolment.keygen import make_hospital
from client.home import HospitalHome
from client.worker.data_news import tell_fault
from shared_model.errors import SettingsError, SiteError
from shared_model.process import supervision
from shared_model.process.supervision import PartStatus, Status
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def home(tmp_path: Path) -> HospitalHome:
    (tmp_path / "hospital.toml").write_text(
        f'name = "north"\ndata = "{tmp_path}/data"\nserver = "127.0.0.1:1"\ncache = "{tmp_path}/cache"\n'
    )
    return HospitalHome(tmp_path)


def test_worker_is_told_the_hospitals_settings(home: HospitalHome) -> None:
    part = WorkerPart(home, home.read_settings(), socket=Path("/run/w.sock"), courier_user="courier")
    command = list(part.command())

    assert Path(command[0]).name == "hipfed-client"
    assert command[1] == "worker"
    options = dict(zip(command[2::2], command[3::2], strict=True))
    assert options == {
        "--name": "north",
        "--data": f"{home.folder}/data",
        "--cache": f"{home.folder}/cache",
        "--socket": "/run/w.sock",
        "--approvals": str(home.folder / "approvals.json"),
        "--courier-user": "courier",
    }


def test_worker_is_ready_when_its_socket_accepts() -> None:
    with tempfile.TemporaryDirectory() as folder:  # short, as socket paths must be
        home = HospitalHome(Path(folder))
        (home.folder / "hospital.toml").write_text('name = "n"\ndata = "/d"\nserver = "h:1"\ncache = "/c"\n')
        path = courier_place(home, courier_user=None).socket
        part = WorkerPart(home, home.read_settings(), socket=path, courier_user=None)
        (home.folder / "worker").mkdir()
        assert not part.is_ready()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            assert not part.is_ready()
            listener.listen()
            assert part.is_ready()


def test_worker_that_cannot_use_the_data_is_in_trouble_until_it_can(home: HospitalHome) -> None:
    part = WorkerPart(home, home.read_settings(), socket=Path("/run/w.sock"), courier_user=None)

    part.observe(tell_fault("data check failed: missing-column (1)"))
    part.observe("worker of north: listening")

    assert part.trouble() == (
        "the worker refuses all studies: data check failed: missing-column (1). "
        f"See: hipfed-client check {home.folder}/data"
    )
    part.observe(tell_fault(""))
    assert part.trouble() == ""
    part.observe(tell_fault("no"))
    part.forget()
    assert part.trouble() == ""


def test_supernode_runs_with_all_rights_only_where_that_is_said(
    home: HospitalHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = home.read_settings()
    free = separation(home, settings, courier_user=None, without_separation=True)
    assert free(["a", "b"], 1) == ["a", "b"]

    monkeypatch.setattr(client.deployment.supervise, "landlock_abi", lambda: 0)
    with pytest.raises(SiteError, match="say --without-separation"):
        separation(home, settings, courier_user=None, without_separation=False)


@pytest.mark.parametrize("user", [None, "courier"])
def test_separated_supernode_may_reach_its_own_files_and_ports_only(
    home: HospitalHome, monkeypatch: pytest.MonkeyPatch, user: str | None
) -> None:
    monkeypatch.setattr(client.deployment.supervise, "landlock_abi", lambda: 4)
    separate = separation(home, home.read_settings(), courier_user=user, without_separation=False)

    command = list(separate(["flower-supernode"], 4567))

    words = command[: command.index("--")]
    assert words[1:5] == ["-P", "-s", "-m", "client.deployment.separation"]
    given = [(words[i], words[i + 1]) for i in range(5, len(words), 2)]
    place = courier_place(home, courier_user=user)
    assert command[command.index("--") + 1 :] == ["flower-supernode"]
    assert {value for key, value in given if key == "--hide"} == {
        *(f"{home.folder}/data", str(home.folder), f"{home.folder}/cache", str(home.signing_key))
    }
    assert {value for key, value in given if key == "--connect"} == {"1", "4567", "53"}
    assert [value for key, value in given if key == "--bind"] == ["4567"]
    assert {value for key, value in given if key == "--write"} == {*map(str, system_devices()), str(place.state)}
    readable = {value for key, value in given if key in {"--read", "--write"}}
    assert not [path for path in readable if home.signing_key.is_relative_to(path)]
    assert [value for key, value in given if key == "--user"] == ([] if user is None else [user])


def test_start_without_the_coordinators_certificate_is_refused_with_what_to_do(
    home: HospitalHome, tmp_path: Path
) -> None:
    made = HospitalHome(tmp_path / "made")
    make_hospital(made, home.read_settings(), now=datetime.now(UTC))

    with pytest.raises(SiteError, match=r"ca\.crt: expected the coordinator's CA certificate, got none"):
        prepare_courier(made, courier_user=None)

    made.authority.write_text("a certificate")
    assert prepare_courier(made, courier_user=None).state.is_dir()


def test_home_without_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"hospital\.toml: expected a settings file"):
        HospitalHome(tmp_path).read_settings()


def test_status_of_a_hospital_that_does_not_run_fails(home: HospitalHome) -> None:
    done = CliRunner().invoke(app, ["status", "--home", str(home.folder)])

    assert (done.exit_code, done.output) == (1, "not running\n")


def test_home_at_too_long_a_path_is_refused_at_once(home: HospitalHome, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir(mode=0o700)
    (long / "hospital.toml").write_bytes(home.settings_file.read_bytes())

    done = CliRunner().invoke(app, ["start", "--home", str(long), "--without-separation", "--detach"])

    assert done.exit_code == 1
    socket_path = long / "worker" / "worker.sock"
    assert f"socket at {socket_path}: expected a path of at most 107 bytes" in done.stderr
    assert not (long / "processes").exists()
    part = WorkerPart(HospitalHome(long), home.read_settings(), socket=socket_path, courier_user=None)
    assert not part.is_ready()


def test_stop_of_a_hospital_that_does_not_run_is_done(home: HospitalHome) -> None:
    done = CliRunner().invoke(app, ["stop", "--home", str(home.folder)])

    assert (done.exit_code, done.output) == (0, "not running\n")


def test_stop_in_a_folder_without_a_home_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["stop", "--home", str(tmp_path)])

    assert (done.exit_code, done.stdout) == (1, "")
    assert "hospital.toml: expected a settings file" in done.stderr


def test_start_without_separation_says_so_loudly(home: HospitalHome, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def become(_: str, command: list[str]) -> None:
        started.append(command)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", become)

    done = CliRunner().invoke(app, ["start", "--home", str(home.folder), "--without-separation"])

    assert done.exit_code == 0
    assert done.output.startswith("WITHOUT SEPARATION")
    assert started[0][1:4] == ["-P", "-m", "client.deployment.supervise"]
    assert started[0][-1] == "--without-separation"


def test_kernel_that_cannot_limit_ports_separates_files_alone(
    home: HospitalHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.deployment.supervise, "landlock_abi", lambda: 3)
    separate = separation(home, home.read_settings(), courier_user=None, without_separation=False)

    command = list(separate(["flower-supernode"], 4567))

    assert not {"--connect", "--bind"} & set(command)
    assert "--hide" in command


@pytest.mark.skipif(not landlock_abi(), reason="this kernel has no Landlock")
def test_modules_below_the_supernodes_home_are_not_loaded_before_it_is_separated(
    home: HospitalHome, tmp_path: Path
) -> None:
    for folder in (home.folder / "courier", tmp_path / "data", tmp_path / "cache", tmp_path / "keys"):
        folder.mkdir(exist_ok=True)
    for file in (home.authority, home.node_key, home.signing_key):
        file.write_text("x")
    user_site = home.folder / "courier" / ".local" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    (user_site / "site-packages").mkdir(parents=True)
    (user_site / "site-packages" / "planted.pth").write_text("import sys; sys.stderr.write('planted\\n')\n")
    separate = separation(home, home.read_settings(), courier_user=None, without_separation=False)
    environment = {"HOME": str(home.folder / "courier"), "PATH": os.environ["PATH"]}
    # A virtual environment has no user site: its interpreter stands for one that has.
    own = Path(sys.base_prefix) / "bin" / "python3"
    words = [str(own), *list(separate([str(own), "-P", "-s", "-c", "print('up')"], 4567))[1:]]

    done = subprocess.run(
        words,
        env={**environment, "PYTHONPATH": os.pathsep.join([str(ROOT), *site.getsitepackages()])},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )

    assert done.stdout == "up\n", done.stderr
    assert "planted" not in done.stderr
    with_user_site = subprocess.run(
        [str(own), "-c", "pass"], env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert "planted" in with_user_site.stderr  # else the test would show nothing


@pytest.mark.parametrize(
    ("state", "reason", "begun"),
    [("ready", "", True), ("starting", "", False), ("waiting", "", False), ("waiting", "no coordinator", True)],
)
def test_start_in_the_background_waits_for_no_coordinator_that_is_away(state: str, reason: str, *, begun: bool) -> None:
    now = datetime.now(UTC)
    worker = PartStatus("worker", "ready", now, 2, 0, "")
    supernode = PartStatus("supernode", state, now, None, 0, reason)

    assert _has_begun(Status(1, "t", now, now, ready=False, line="", parts=(worker, supernode))) is begun


def test_start_in_the_background_is_not_done_while_the_worker_is_not_ready() -> None:
    now = datetime.now(UTC)
    worker = PartStatus("worker", "waiting", now, None, 3, "worker ended by itself")
    supernode = PartStatus("supernode", "waiting", now, None, 0, "")

    assert not _has_begun(Status(1, "t", now, now, ready=False, line="", parts=(worker, supernode)))


@pytest.mark.parametrize(("reason", "code"), [(f"it ended: {FAILED}/x: no", 1), ("no coordinator", 0)])
def test_start_in_the_background_fails_where_the_supernode_cannot_be_separated(
    home: HospitalHome, monkeypatch: pytest.MonkeyPatch, reason: str, code: int
) -> None:
    now = datetime.now(UTC)
    supernode = PartStatus("supernode", "waiting", now, None, 0, reason)
    told = Status(1, "t", now, now, ready=False, line=reason, parts=(supernode,))
    monkeypatch.setattr(supervision, "start", lambda *_, **__: True)
    monkeypatch.setattr(supervision, "read_status", lambda _: told)

    done = CliRunner().invoke(app, ["start", "--home", str(home.folder), "--without-separation", "--detach"])

    assert done.exit_code == code
