"""A command that cannot reach the hospital's data: it runs as another user, under Landlock, or both.

`python -P -m client.deployment.separation --read PATH --write PATH --hide PATH --user NAME -- COMMAND` takes rights
from itself, tries the hidden paths, and becomes the command only where it could open none of them. Being a process of
its own, it has one thread, as Landlock and the change of user require.
"""

import argparse
import ctypes
import os
import pwd
import resource
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from client.deployment.landlock import Allowed, enforce_ruleset, forbid_new_privileges, landlock_abi, open_ruleset
from shared_model.errors import HipfedError, SiteError

_PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 4, 24

# Besides the Python installation: what an interpreter, TLS and name resolution read.
_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime", "/etc/timezone"),
    *("/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/passwd", "/etc/group", "/etc/services"),
    *("/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"),
    *("/dev/urandom", "/dev/random", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/sys/devices/system/cpu"),
)
FAILED = "separation: "  # before what is wrong
_DEVICES = ("/dev/null", "/dev/zero")


@dataclass(frozen=True)
class Separation:
    """What the command may reach, and what it must not.

    Attributes:
        allowed: files and ports.
        hidden: files and folders that the command must not be able to open.
        user: to run as; needs root. None keeps the user, and leaves it to Landlock.
    """

    allowed: Allowed
    hidden: tuple[Path, ...] = ()
    user: str | None = None

    def command(self, command: Sequence[str]) -> list[str]:
        """The command line that starts a command separated."""
        options = {
            "--read": self.allowed.read,
            "--write": self.allowed.write,
            "--connect": self.allowed.connect or (),
            "--bind": self.allowed.bind,
            "--hide": self.hidden,
            "--user": () if self.user is None else (self.user,),
        }
        words = [word for option, values in options.items() for value in values for word in (option, str(value))]
        # -s: modules below HOME, which the command may change, must not be loaded before the rights are taken.
        return [sys.executable, "-P", "-s", "-m", "client.deployment.separation", *words, "--", *command]

    def enter(self) -> str:
        """Take the rights from this process; returns what separates it, in words.

        Raises:
            SiteError: neither way is there, or a hidden path can still be opened.
        """
        account = None if self.user is None else _account(self.user)
        abi = landlock_abi()
        if account is None and not abi:
            raise SiteError(
                "separation: expected a separate user (root, and a user's name) or a kernel with Landlock (5.13 or "
                f"newer), got neither (Linux {os.uname().release}). Without either the command could read the data."
            )
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        with open_ruleset(self.allowed) if abi else nullcontext() as ruleset:  # opens paths that the user may not
            _drop_capabilities()
            if account is not None:
                _become(account)
            forbid_new_privileges()
            if ruleset is not None:
                enforce_ruleset(ruleset)
        for path in self.hidden:
            _check_hidden(path, by_landlock=bool(abi))
        ways = [f"user {account.pw_name}"] if account else []
        return " and ".join([*ways, *([f"Landlock version {abi}"] if abi else [])])


def system_paths() -> tuple[Path, ...]:
    """What there is of Python's installation and of the system's own files, to be read."""
    python = (Path(sys.prefix), Path(sys.base_prefix))
    return tuple(dict.fromkeys(path for path in (*python, *map(Path, _SYSTEM)) if path.exists()))


def system_devices() -> tuple[Path, ...]:
    """Devices that every program writes to."""
    return tuple(Path(name) for name in _DEVICES)


def close_to_others() -> None:
    """Other processes of this one's user cannot read its memory, environment and open files, nor a dump of it.

    Raises:
        SiteError: the kernel refused.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise SiteError(f"PR_SET_DUMPABLE: expected the kernel to set it, got: {os.strerror(ctypes.get_errno())}.")


def _account(user: str) -> pwd.struct_passwd:
    try:
        account = pwd.getpwnam(user)
    except KeyError as error:
        raise SiteError(f"user {user}: expected one of this machine, got none. Make it: useradd --system.") from error
    if os.geteuid() != 0:
        raise SiteError(f"user {user}: expected root, which alone may change the user, got uid {os.geteuid()}.")
    if account.pw_uid == 0:
        raise SiteError(f"user {user}: expected another than root, got root. Name an account without rights.")
    return account


def _become(account: pwd.struct_passwd) -> None:
    os.setgroups([])
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)


def _drop_capabilities() -> None:
    """Root's command starts without root's capabilities; for others there is nothing to drop."""
    if os.geteuid() != 0:
        return
    libc, capability = ctypes.CDLL(None, use_errno=True), 0
    while libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    if not capability:
        raise SiteError(f"capabilities: expected the kernel to drop them, got: {os.strerror(ctypes.get_errno())}.")


def _check_hidden(path: Path, *, by_landlock: bool) -> None:
    """The path cannot be opened. Landlock lets a folder be passed, but not what is in it be read.

    Raises:
        SiteError: it can.
    """
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except PermissionError:
        if by_landlock or not os.access(path, os.X_OK):
            return
    except FileNotFoundError:
        return
    except OSError as error:
        raise SiteError(f"{path}: expected a path that is refused, got: {error.strerror}.") from error
    raise SiteError(
        f"{path}: expected a path that a separated command cannot open, got one that it can. Move it out of the "
        "folders that the command may read, or take others' rights away (chmod go-rwx)."
    )


def _parse(words: Sequence[str]) -> tuple[Separation, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m client.deployment.separation", description=__doc__.split("\n", maxsplit=1)[0]
    )
    for name in ("read", "write", "hide"):
        parser.add_argument(f"--{name}", type=Path, action="append", default=[], metavar="PATH")
    for name in ("connect", "bind"):
        parser.add_argument(f"--{name}", type=int, action="append", metavar="PORT")
    parser.add_argument("--user")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args(words)
    limits_ports = given.connect is not None or given.bind is not None
    allowed = Allowed(
        read=tuple(given.read),
        write=tuple(given.write),
        connect=tuple(given.connect or ()) if limits_ports else None,
        bind=tuple(given.bind or ()),
    )
    return Separation(allowed, hidden=tuple(given.hide), user=given.user), given.command


def _become_command(command: list[str], *, user: str | None) -> NoReturn:
    try:
        os.execvp(command[0], command)  # noqa: S606 - the command is the caller's own
    except PermissionError as error:
        raise SiteError(
            f"{command[0]}: expected a Python that user {user or os.geteuid()} may read and execute, got: "
            f"{error.strerror}. Install hipfed with one that every user may, such as below /opt or /usr."
        ) from error


def main(words: Sequence[str]) -> NoReturn:
    """Separate this process and become the command; exit status 1 where that cannot be done."""
    separation, command = _parse(words)
    try:
        how = separation.enter()
        sys.stderr.write(f"separated by {how}\n")
        sys.stderr.flush()
        _become_command(command, user=separation.user)
    except (HipfedError, OSError) as error:
        sys.stderr.write(f"{FAILED}{error}\n")
        raise SystemExit(1) from error


if __name__ == "__main__":
    main(sys.argv[1:])
