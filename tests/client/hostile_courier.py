"""What a hostile bundle would try; run as a program of its own, with Python's standard library only.

Reads a JSON object of paths and questions, tries everything, and writes what came of each attempt as JSON.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_PTRACE_SEIZE, _SYS_PIDFD_OPEN, _SYS_PIDFD_GETFD = 0x4206, 434, 438


def _system(number: int, *arguments: Any) -> int:
    result: int = _LIBC.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _ptrace(pid: int) -> None:
    if _LIBC.ptrace(_PTRACE_SEIZE, pid, None, None) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _steal_descriptors(pid: int) -> list[int]:
    handle = _system(_SYS_PIDFD_OPEN, pid, 0)
    return [_system(_SYS_PIDFD_GETFD, handle, number, 0) for number in range(3, 6)]


def _list(folder: str) -> list[str]:
    return [path.name for path in Path(folder).iterdir()]


def _read_through_link(target: str, folder: str) -> list[str]:
    link = Path(folder, "link")
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    return _list(str(link))


def _impersonate(path: str) -> None:
    Path(path).unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)


def _cat(path: str) -> str:
    return subprocess.run(["/bin/cat", path], capture_output=True, check=True).stdout.decode()


def _regain_root() -> None:
    os.setuid(0)
    os.setgroups([0])
    os.chown("/", 0, 0)  # changes nothing, but only root may


def attempts_at_files(given: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Every way to the patients, keys, cache and approvals by the file system."""
    data, pid = given["data"], given["pid"]
    table = f"{data}/patients.csv"
    return {
        "read a table": lambda: Path(table).read_text(),
        "list the data": lambda: _list(data),
        "read a table with cat": lambda: _cat(table),
        "list the data through a link": lambda: _read_through_link(data, given["courier"]),
        "hard-link a table": lambda: Path(given["courier"], "table").hardlink_to(table),
        "move the data": lambda: Path(data).rename(f"{given['courier']}/data"),
        "change the data": lambda: Path(table).write_text("patient_id\n"),
        "add to the data": lambda: Path(data, "new").write_text("x"),
        "read a key": lambda: Path(given["key"]).read_text(),
        "list the cache": lambda: _list(given["cache"]),
        "read a cached array": lambda: Path(given["array"]).read_bytes(),
        "read the worker's log": lambda: Path(given["log"]).read_text(),
        "read the approvals": lambda: Path(given["approvals"]).read_text(),
        "approve a study": lambda: Path(given["approvals"]).write_text("{}"),
        "reach the data through the worker's root": lambda: _list(f"/proc/{pid}/root{data}"),
        "reach the data through the worker's folder": lambda: _list(f"/proc/{pid}/cwd{data}"),
        "take the worker's place": lambda: _impersonate(given["socket"]),
    }


def attempts_at_the_worker(given: dict[str, Any]) -> dict[str, Callable[[], object]]:
    """Every way into the worker's process."""
    pid = given["pid"]
    return {
        "read the worker's memory": lambda: open(f"/proc/{pid}/mem", "rb").close(),  # noqa: PTH123
        "read the worker's environment": lambda: Path(f"/proc/{pid}/environ").read_bytes(),
        "read the worker's map": lambda: Path(f"/proc/{pid}/maps").read_text(),
        "list the worker's files": lambda: _list(f"/proc/{pid}/fd"),
        "trace the worker": lambda: _ptrace(pid),
        "steal the worker's files": lambda: _steal_descriptors(pid),
        "become root": _regain_root,
        "mount": lambda: _system(165, b"none", b"/mnt", b"tmpfs", 0, None),
        "end the worker": lambda: os.kill(pid, signal.SIGKILL),
    }


def ask(path: str, question: bytes) -> str:
    """What the worker says to these bytes, in hex."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(path)
        received = bytearray()
        with suppress(BrokenPipeError):
            connection.sendall(question)
        with suppress(ConnectionResetError):
            while chunk := connection.recv(2**16):
                received += chunk
    return received.hex()


def _try(attempt: Callable[[], object]) -> str:
    try:
        return f"did it: {attempt()!r}"[:200]
    except Exception as error:  # noqa: BLE001 - the outcome is told, whatever it is
        return type(error).__name__


def main(given_file: str, result_file: str) -> None:
    """Try everything."""
    given = json.loads(Path(given_file).read_text())
    files = {name: _try(attempt) for name, attempt in attempts_at_files(given).items()}
    answers = {name: ask(given["socket"], bytes.fromhex(question)) for name, question in given["questions"].items()}
    worker = {name: _try(attempt) for name, attempt in attempts_at_the_worker(given).items()}
    who = {"uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups()}
    result = {"files": files, "worker": worker, "answers": answers, "who": who}
    Path(result_file).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
