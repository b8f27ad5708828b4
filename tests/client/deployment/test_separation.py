import json
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import client.deployment.separation
from client.deployment.landlock import Allowed, landlock_abi, open_ruleset
from client.deployment.separation import FAILED, Separation, system_devices, system_paths
from shared_model.errors import SiteError
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]
NET_ABI = 4

needs_landlock = pytest.mark.skipif(not landlock_abi(), reason="this kernel has no Landlock")
needs_ports = pytest.mark.skipif(landlock_abi() < NET_ABI, reason=f"this kernel's Landlock is older than {NET_ABI}")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user")


def _run(separation: Separation, *command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    words = separation.command([str(word) for word in command])
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False, **options)


def _python(separation: Separation, code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return _run(separation, sys.executable, "-I", "-c", code, *arguments, **options)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "patients.csv").write_text("patient_id\n")
    return tmp_path / "data"


def _allowed(*write: Path, **ports: Any) -> Allowed:
    return Allowed(read=system_paths(), write=(*system_devices(), *write), **ports)


def test_command_line_says_all_that_is_allowed_and_hidden(tmp_path: Path) -> None:
    allowed = Allowed(read=(Path("/usr"),), write=(tmp_path,), connect=(443,), bind=(9094,))
    separation = Separation(allowed, hidden=(Path("/srv/data"),), user="courier")

    words = separation.command(["python", "--version"])

    assert words[:5] == [sys.executable, "-P", "-s", "-m", "client.deployment.separation"]
    parsed, command = client.deployment.separation._parse(words[5:])
    assert (parsed, command) == (separation, ["python", "--version"])
    bare = Separation(Allowed(read=(Path("/usr"),)))
    assert client.deployment.separation._parse(bare.command(["x"])[5:]) == (bare, ["x"])


@needs_landlock
def test_separated_command_works_in_its_own_folder_and_reads_nothing_else(tmp_path: Path, secret: Path) -> None:
    (tmp_path / "own").mkdir()
    code = """
import json, pathlib, sys
own, secret = map(pathlib.Path, sys.argv[1:])
(own / "made").write_text("x")
(own / "folder").mkdir()
(own / "made").rename(own / "folder" / "moved")
outcome = [(own / "folder" / "moved").read_text()]
for attempt in (lambda: list(secret.iterdir()), (secret / "patients.csv").read_text):
    try:
        outcome.append(str(attempt()))
    except PermissionError:
        outcome.append("refused")
print(json.dumps(outcome))
"""
    done = _python(Separation(_allowed(tmp_path / "own"), hidden=(secret,)), code, tmp_path / "own", secret)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["x", "refused", "refused"]
    assert done.stderr == f"separated by Landlock version {landlock_abi()}\n"


@needs_landlock
def test_separated_command_can_do_what_a_courier_does() -> None:
    """Import Flower and the courier, make a TLS context, look up a name, start a process."""
    code = """
import socket, ssl, subprocess, sys
import client.app
ssl.create_default_context()
socket.getaddrinfo("localhost", 443)
subprocess.run([sys.executable, "-c", "print('child')"], check=True)
"""
    separation = Separation(Allowed(read=(*system_paths(), ROOT), write=system_devices()))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    done = _run(separation, sys.executable, "-c", code, env=environment, cwd=ROOT)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "child\n"


@needs_landlock
def test_launcher_refuses_when_a_hidden_path_lies_in_what_is_allowed(tmp_path: Path, secret: Path) -> None:
    done = _run(Separation(_allowed(tmp_path), hidden=(secret,)), "/bin/echo", "started")

    assert done.returncode == 1
    assert f"{secret}: expected a path that a separated command cannot open, got one that it can" in done.stderr
    assert done.stdout == ""


@needs_landlock
def test_launcher_refuses_a_path_that_is_not_there(tmp_path: Path) -> None:
    done = _run(Separation(_allowed(tmp_path / "nowhere")), "/bin/echo", "started")

    assert done.returncode == 1
    assert "nowhere: expected a file or folder to allow, got: No such file or directory" in done.stderr
    assert done.stdout == ""


def test_separation_is_refused_when_there_is_neither_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(client.deployment.separation, "landlock_abi", lambda: 0)

    with pytest.raises(SiteError, match=r"expected a separate user .* or a kernel with Landlock .* got neither"):
        Separation(Allowed(), hidden=(tmp_path,)).enter()


@needs_root
@pytest.mark.parametrize(
    ("user", "message"), [("no-such-user", "got none. Make it: useradd --system"), ("root", "another than root")]
)
def test_separation_is_refused_for_a_user_that_would_not_separate(user: str, message: str) -> None:
    done = _run(Separation(_allowed(), user=user), "/bin/echo", "started")

    assert done.returncode == 1
    assert message in done.stderr
    assert done.stdout == ""


def test_separate_user_is_refused_to_who_is_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(SiteError, match="expected root, which alone may change the user, got uid 1000"):
        Separation(Allowed(), user="nobody").enter()


@needs_root
def test_command_of_another_user_has_neither_roots_groups_nor_rights() -> None:
    nobody = pwd.getpwnam("nobody")

    done = _run(Separation(_allowed(), user="nobody"), "/usr/bin/id", "-u")
    groups = _run(Separation(_allowed(), user="nobody"), "/usr/bin/id", "-G")

    assert done.stdout == f"{nobody.pw_uid}\n"
    assert groups.stdout == f"{nobody.pw_gid}\n"


@needs_root
@needs_landlock
def test_command_of_root_starts_without_roots_capabilities_and_cannot_gain_rights() -> None:
    allowed = Allowed(read=(*system_paths(), Path("/proc")), write=system_devices())

    status = _run(Separation(allowed), "/bin/cat", "/proc/self/status").stdout

    for kind in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert f"{kind}:\t{0:016x}\n" in status
    assert "NoNewPrivs:\t1\n" in status


@needs_landlock
def test_open_files_of_the_parent_are_closed(secret: Path) -> None:
    code = """
import os, sys
try:
    print(os.read(int(sys.argv[1]), 10))
except OSError as error:
    print(error.strerror)
"""
    handle = os.open(secret / "patients.csv", os.O_RDONLY)
    try:
        done = _python(Separation(_allowed(), hidden=(secret,)), code, handle, pass_fds=[handle])
    finally:
        os.close(handle)

    assert done.stdout == "Bad file descriptor\n"


@needs_ports
def test_ports_that_are_not_named_cannot_be_reached() -> None:
    code = """
import socket, sys
for port in map(int, sys.argv[1:]):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        print("connected")
    except PermissionError:
        print("refused")
try:
    socket.create_server(("127.0.0.1", 0))
    print("listening")
except PermissionError:
    print("refused")
"""
    with socket.create_server(("127.0.0.1", 0)) as named, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [server.getsockname()[1] for server in (named, other)]
        limited = _python(Separation(_allowed(connect=(ports[0],))), code, *ports)
        free = _python(Separation(_allowed()), code, *ports)

    assert limited.stdout.split() == ["connected", "refused", "refused"], limited.stderr
    assert free.stdout.split() == ["connected", "connected", "listening"], free.stderr


def test_ports_are_not_limited_silently_by_a_kernel_that_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.deployment.landlock.landlock_abi", lambda: NET_ABI - 1)

    with pytest.raises(SiteError, match="expected version 4 to limit ports, got 3"):
        open_ruleset(Allowed(connect=())).__enter__()


def test_worker_closes_itself_to_other_processes_of_its_user() -> None:
    code = """
import ctypes, resource
from client.deployment.separation import close_to_others
close_to_others()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    assert done.stdout == "0 (0, 0)\n", done.stderr


def test_launcher_imports_nothing_heavy() -> None:
    heavy = "{'flwr', 'numpy', 'torch', 'pydantic'}"
    code = f"import sys, client.deployment.separation; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    assert done.stdout == "[]\n", done.stderr


@needs_root
def test_python_that_the_user_may_not_execute_is_named_with_what_to_do(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o700)

    done = _run(Separation(_allowed(), user="nobody"), python)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        f"{FAILED}{python}: expected a Python that user nobody may read and execute, got: Permission denied. Install"
    )
