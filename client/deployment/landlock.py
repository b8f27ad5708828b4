"""Landlock: a Linux process takes file, network and signal rights from itself and all that it starts, for good.

Source: the kernel's userspace-api/landlock and include/uapi/linux/landlock.h. The three system calls have the same
numbers on every architecture; glibc has no names for them.
"""

import ctypes
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared_model.errors import SiteError

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL_DEV = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
# The first ABI with each right of the file system, by number of rights: 13 at first, then REFER, TRUNCATE, IOCTL_DEV.
_N_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
ABI_NET, _ABI_SCOPE = 4, 6  # versions from which TCP ports, and signals and abstract sockets, are limited
_SCOPED = 0b11  # abstract sockets, signals

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Allowed:
    """What a restricted process may still do.

    Attributes:
        read: files, and folders with all below them, to read and execute.
        write: likewise, to change too.
        connect: TCP ports to connect to; None leaves connections alone.
        bind: TCP ports to listen on; with `connect` None, all of them.
    """

    read: tuple[Path, ...] = ()
    write: tuple[Path, ...] = ()
    connect: tuple[int, ...] | None = None
    bind: tuple[int, ...] = ()


def landlock_abi() -> int:
    """Version of the kernel's Landlock; 0 where there is none, or where it is switched off."""
    version: int = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_ASK_VERSION))
    return max(version, 0)


@contextmanager
def open_ruleset(allowed: Allowed) -> Iterator[int]:
    """The descriptor of a ruleset, for `enforce_ruleset`.

    Signals and abstract sockets reach no process outside from version 6 of Landlock on, ports are limited from 4 on.

    Raises:
        SiteError: there is no Landlock, none that limits ports though ports are given, or a path cannot be opened.
    """
    abi = landlock_abi()
    if not abi:
        raise SiteError("Landlock: expected a kernel (5.13 or newer) with it, got none. Use a separate user.")
    if allowed.connect is not None and abi < ABI_NET:
        raise SiteError(f"Landlock: expected version {ABI_NET} to limit ports, got {abi}. Leave the ports out.")
    file_rights = (1 << _N_FILE_RIGHTS[min(abi, max(_N_FILE_RIGHTS))]) - 1
    net_rights = 0 if allowed.connect is None else _BIND_TCP | _CONNECT_TCP
    handled = struct.pack("=QQQ", file_rights, net_rights, _SCOPED if abi >= _ABI_SCOPE else 0)
    size = 8 if abi < ABI_NET else 16 if abi < _ABI_SCOPE else 24
    ruleset = _call(_CREATE_RULESET, handled, ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        _allow_paths(ruleset, allowed.read, _READ)
        _allow_paths(ruleset, allowed.write, file_rights)
        if net_rights:
            _allow_ports(ruleset, allowed.connect or (), _CONNECT_TCP)
            _allow_ports(ruleset, allowed.bind, _BIND_TCP)
        yield ruleset
    finally:
        os.close(ruleset)


def enforce_ruleset(ruleset: int) -> None:
    """Take from this process, which must have one thread only, everything but what the ruleset allows.

    Raises:
        SiteError: the kernel refused.
    """
    forbid_new_privileges()
    _call(_RESTRICT_SELF, ruleset, ctypes.c_uint32(0))


def forbid_new_privileges() -> None:
    """No program that this process starts gains rights by set-user-id bits or file capabilities.

    Raises:
        SiteError: the kernel refused.
    """
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise SiteError(f"no_new_privs: expected the kernel to set it, got: {os.strerror(ctypes.get_errno())}.")


def _allow_paths(ruleset: int, paths: Iterable[Path], rights: int) -> None:
    for path in paths:
        with _opened(path) as handle:
            is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
            of_it = rights if is_folder else rights & _FILE_RIGHTS
            _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", of_it, handle), ctypes.c_uint32(0))


def _allow_ports(ruleset: int, ports: Iterable[int], right: int) -> None:
    for port in ports:
        _call(_ADD_RULE, ruleset, _NET_PORT, struct.pack("=QQ", right, port), ctypes.c_uint32(0))


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise SiteError(
            f"{path}: expected a file or folder to allow, got: {error.strerror}. Make it first, or leave it out."
        ) from error
    try:
        yield handle
    finally:
        os.close(handle)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        raise SiteError(f"Landlock: expected system call {number} to work, got: {os.strerror(ctypes.get_errno())}.")
    return result
