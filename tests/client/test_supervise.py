"""The hospital as a service: which processes, and what the commands say."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.home import HospitalHome
from client.supervise import WorkerPart, separation
from shared_model.errors import SettingsError, SiteError


@pytest.fixture
def home(tmp_path: Path) -> HospitalHome:
    (tmp_path / "hospital.toml").write_text(
        f'name = "north"\ndata = "{tmp_path}"\nserver = "127.0.0.1:1"\ncache = "{tmp_path}/cache"\n'
    )
    return HospitalHome(tmp_path)


def test_worker_is_told_the_hospitals_settings(home: HospitalHome) -> None:
    command = list(WorkerPart(home, home.read_settings(), courier_user="courier").command())

    assert Path(command[0]).name == "hipfed-client"
    assert command[1] == "worker"
    options = dict(zip(command[2::2], command[3::2], strict=True))
    assert options == {
        "--name": "north",
        "--data": str(home.folder),
        "--cache": f"{home.folder}/cache",
        "--socket": str(home.folder / "worker" / "worker.sock"),
        "--approvals": str(home.folder / "approvals.json"),
        "--courier-user": "courier",
    }


def test_worker_is_ready_when_its_socket_accepts() -> None:
    with tempfile.TemporaryDirectory() as folder:  # short, as socket paths must be
        home = HospitalHome(Path(folder))
        (home.folder / "hospital.toml").write_text('name = "n"\ndata = "/d"\nserver = "h:1"\ncache = "/c"\n')
        part = WorkerPart(home, home.read_settings(), courier_user=None)
        (home.folder / "worker").mkdir()
        assert not part.is_ready()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(home.folder / "worker" / "worker.sock"))
            assert not part.is_ready()
            listener.listen()
            assert part.is_ready()


def test_supernode_runs_with_all_rights_only_where_that_is_said() -> None:
    assert separation(courier_user=None, without_separation=True)(["a", "b"], 1) == ["a", "b"]
    with pytest.raises(SiteError, match="Say --without-separation"):
        separation(courier_user=None, without_separation=False)


def test_home_without_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"hospital\.toml: expected a hospital's settings"):
        HospitalHome(tmp_path).read_settings()


def test_status_of_a_hospital_that_does_not_run_fails(home: HospitalHome) -> None:
    done = CliRunner().invoke(app, ["status", "--home", str(home.folder)])

    assert (done.exit_code, done.output) == (1, "not running\n")


def test_stop_of_a_hospital_that_does_not_run_is_done(home: HospitalHome) -> None:
    done = CliRunner().invoke(app, ["stop", "--home", str(home.folder)])

    assert (done.exit_code, done.output) == (0, "not running\n")


def test_start_without_separation_says_so_loudly(home: HospitalHome, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    def become(_: str, command: list[str]) -> None:
        started.append(command)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", become)

    done = CliRunner().invoke(app, ["start", "--home", str(home.folder), "--without-separation"])

    assert done.exit_code == 0
    assert done.output.startswith("WITHOUT SEPARATION")
    assert started[0][1:4] == ["-P", "-m", "client.supervise"]
    assert started[0][-1] == "--without-separation"
