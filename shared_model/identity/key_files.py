"""Files that only their owner may read: private keys above all. Made whole or not at all, never over another file.

Reading refuses a key that the group or others may touch, or that another user owns, on the file that is opened and
not on its name, so that it cannot be exchanged in between.
"""

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP384R1,
    EllipticCurvePrivateKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from shared_model.errors import KeyFileError
from shared_model.process.files import replace_file, sync_folder, write_beside

PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_MAX_BYTES = 64 * 1024
_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, that only its owner may enter (mode 0700).

    Raises:
        KeyFileError: it cannot be made, or holds something already.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = sorted(path.name for path in folder.iterdir())
        if found:
            raise KeyFileError(
                f"{folder}: expected a new or an empty folder, got one with {', '.join(found[:5])}. Choose another "
                "one; or, if an earlier try was interrupted here, remove what it left."
            )
        folder.chmod(0o700)
    except OSError as error:
        raise KeyFileError(
            f"{folder}: expected a folder that can be made, got: {error.strerror}. Choose another."
        ) from error


def refuse_changeable_folder(folder: Path) -> None:
    """Refuse a home in which somebody else could exchange files.

    Raises:
        KeyFileError: another user owns it, or may write there; or it is missing.
    """
    try:
        state = folder.stat()
    except OSError as error:
        raise _unreadable(folder, error) from error
    if state.st_uid != os.geteuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise KeyFileError(
            f"{folder}: expected a folder of this user (id {os.geteuid()}) that nobody else may change, got one of "
            f"user {state.st_uid} with mode {stat.S_IMODE(state.st_mode):04o}. Start as its owner; chmod 700 {folder}"
        )


def write_new(path: Path, content: bytes, *, private: bool) -> None:
    """Make a file, at once and never over another one; a missing folder is made with mode 0700.

    Args:
        path: the new file.
        content: its bytes.
        private: mode 0600 rather than 0644.

    Raises:
        KeyFileError: the file exists, or cannot be written.
    """
    try:
        temporary = _write_beside(path, content, private=private)
        try:
            path.hardlink_to(temporary)
        finally:
            temporary.unlink()
        sync_folder(path.parent)
    except FileExistsError as error:
        raise KeyFileError(
            f"{path}: expected no such file, got one that exists. It is never overwritten: move it away first if it is "
            "no longer needed."
        ) from error
    except OSError as error:
        raise _unwritable(path, error) from error


def replace_whole(path: Path, content: bytes, *, private: bool) -> None:
    """Replace a file so that a crash leaves the old one or the new one.

    Args:
        path: the file; it need not exist.
        content: its new bytes.
        private: mode 0600 rather than 0644.

    Raises:
        KeyFileError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(path, content, mode=0o600 if private else 0o644)
    except OSError as error:
        raise _unwritable(path, error) from error


def read_private(path: Path) -> bytes:
    """Content of a file that only this user may read.

    Raises:
        KeyFileError: it is missing, not a file, another user's, open to others, or too large.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            _refuse_others(path, os.fstat(file.fileno()))
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(content) > _MAX_BYTES:
        raise KeyFileError(f"{path}: expected at most {_MAX_BYTES} bytes, got more. This is not a key.")
    return content


def refuse_open_to_others(path: Path) -> None:
    """Refuse a file that somebody else owns, may read or may change.

    Raises:
        KeyFileError: it is such a file, or missing.
    """
    try:
        _refuse_others(path, path.stat())
    except OSError as error:
        raise _unreadable(path, error) from error


def write_private_key(path: Path, key: PrivateKey, *, openssh: bool) -> None:
    """Make a private key's file, mode 0600, without a passphrase.

    Args:
        path: the new file.
        key: the key.
        openssh: OpenSSH's format, as Flower reads a node's key, rather than PKCS 8, as TLS servers read theirs.

    Raises:
        KeyFileError: the file exists, or cannot be written.
    """
    write_new(path, private_bytes(key, openssh=openssh), private=True)


def private_bytes(key: PrivateKey, *, openssh: bool) -> bytes:
    """A private key as its file holds it: OpenSSH's format, or PKCS 8 in PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH if openssh else PrivateFormat.PKCS8, NoEncryption())


def read_node_key(path: Path) -> EllipticCurvePrivateKey:
    """A hospital's node key (EC P-384), with which its SuperNode proves to Flower who it is.

    Raises:
        KeyFileError: as for `read_private`, or it is no such key.
    """
    key = _read_key(path, expected="an EC P-384 key")
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP384R1):
        raise _other_key(path, expected="an EC P-384 key")
    return key


def read_signing_key(path: Path) -> Ed25519PrivateKey:
    """A hospital's signing key (Ed25519), which its worker alone holds.

    Raises:
        KeyFileError: as for `read_private`, or it is no such key.
    """
    key = _read_key(path, expected="an Ed25519 key")
    if not isinstance(key, Ed25519PrivateKey):
        raise _other_key(path, expected="an Ed25519 key")
    return key


def read_ec_key(path: Path) -> EllipticCurvePrivateKey:
    """An EC key of any curve, as authorities and TLS servers have.

    Raises:
        KeyFileError: as for `read_private`, or it is no such key.
    """
    key = _read_key(path, expected="an EC key")
    if not isinstance(key, EllipticCurvePrivateKey):
        raise _other_key(path, expected="an EC key")
    return key


def _read_key(path: Path, *, expected: str) -> object:
    content = read_private(path)
    try:
        load = load_ssh_private_key if content.startswith(_OPENSSH) else load_pem_private_key
        return load(content, None)
    except (ValueError, TypeError, NotImplementedError, UnsupportedAlgorithm) as error:  # TypeError: a passphrase
        raise _other_key(path, expected=expected) from error


def _other_key(path: Path, *, expected: str) -> KeyFileError:
    return KeyFileError(
        f"{path}: expected {expected} without a passphrase, got something else. Restore it from the backup, or make "
        "new keys and enrol them."
    )


def _refuse_others(path: Path, state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise KeyFileError(f"{path}: expected a file, got something else. Name the file itself.")
    if state.st_uid != os.geteuid():
        raise KeyFileError(
            f"{path}: expected a file of this user (id {os.geteuid()}), got one of user {state.st_uid}. Start as its "
            f"owner, or: chown {os.geteuid()} {path}"
        )
    if state.st_mode & _OTHERS:
        raise KeyFileError(
            f"{path}: expected mode 0600, got {stat.S_IMODE(state.st_mode):04o}: others may read or change it. If it "
            f"is a key that somebody may have read, make a new one; else: chmod 600 {path}"
        )


def _write_beside(path: Path, content: bytes, *, private: bool) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return write_beside(path, content, mode=0o600 if private else 0o644)


def _unwritable(path: Path, error: OSError) -> KeyFileError:
    return KeyFileError(
        f"{path}: expected a place that can be written, got: {error.strerror}. Make room or mend the permissions, "
        "then try again."
    )


def _unreadable(path: Path, error: OSError) -> KeyFileError:
    return KeyFileError(
        f"{path}: expected a file that can be read, got: {error.strerror}. Name the right folder with --home, or "
        "restore it from the backup."
    )
