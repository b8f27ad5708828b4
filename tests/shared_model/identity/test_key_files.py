import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from shared_model.errors import KeyFileError
from shared_model.identity.key_files import (
    make_private_folder,
    private_bytes,
    read_ec_key,
    read_node_key,
    read_private,
    read_signing_key,
    refuse_open_to_others,
    replace_whole,
    write_new,
    write_private_key,
)

KEY = generate_private_key(SECP384R1())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def wide_umask() -> object:
    former = os.umask(0)
    yield None
    os.umask(former)


@pytest.mark.usefixtures("wide_umask")
def test_private_key_and_its_folder_are_the_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    write_private_key(tmp_path / "keys" / "signing", Ed25519PrivateKey.generate(), openssh=True)

    assert mode_of(tmp_path / "keys" / "signing") == 0o600
    assert mode_of(tmp_path / "keys") == 0o700


def test_public_file_may_be_read_by_all(tmp_path: Path) -> None:
    write_new(tmp_path / "node.pub", b"key", private=False)

    assert mode_of(tmp_path / "node.pub") == 0o644


@pytest.mark.parametrize(
    ("key", "read"),
    [
        (generate_private_key(SECP384R1()), read_node_key),
        (Ed25519PrivateKey.generate(), read_signing_key),
        (generate_private_key(SECP256R1()), read_ec_key),
    ],
    ids=["node", "signing", "authority"],
)
@pytest.mark.parametrize("openssh", [True, False])
def test_key_is_read_as_it_was_written(
    tmp_path: Path, key: Ed25519PrivateKey, read: Callable[[Path], Ed25519PrivateKey], *, openssh: bool
) -> None:
    write_private_key(tmp_path / "key", key, openssh=openssh)

    assert read(tmp_path / "key").public_key() == key.public_key()


def test_existing_key_is_never_overwritten(tmp_path: Path) -> None:
    write_new(tmp_path / "key", b"old", private=True)

    with pytest.raises(KeyFileError, match=r"key: expected no such file, got one that exists\. It is never"):
        write_new(tmp_path / "key", b"new", private=True)

    assert (tmp_path / "key").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("write", [write_new, replace_whole])
def test_full_disk_leaves_no_key_and_no_part_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., None]
) -> None:
    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(
        KeyFileError, match=r"expected a place that can be written, got: No space left on device\. Make"
    ):
        write(tmp_path / "key", b"content", private=True)

    assert list(tmp_path.iterdir()) == []


def test_interrupted_replacement_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_new(tmp_path / "key", b"old", private=True)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        replace_whole(tmp_path / "key", b"new", private=True)

    assert (tmp_path / "key").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o777])
def test_key_is_refused_when_others_may_touch_it(tmp_path: Path, mode: int) -> None:
    write_private_key(tmp_path / "key", Ed25519PrivateKey.generate(), openssh=True)
    (tmp_path / "key").chmod(mode)

    with pytest.raises(KeyFileError, match=rf"key: expected mode 0600, got {mode:04o}: .*chmod 600"):
        read_signing_key(tmp_path / "key")
    with pytest.raises(KeyFileError, match=f"got {mode:04o}"):
        refuse_open_to_others(tmp_path / "key")


def test_key_is_refused_when_another_user_owns_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private_key(tmp_path / "key", Ed25519PrivateKey.generate(), openssh=True)
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    with pytest.raises(
        KeyFileError, match=rf"expected a file of this user \(id {owner + 1}\), got one of user {owner}"
    ):
        read_signing_key(tmp_path / "key")


def test_link_to_an_open_file_is_refused(tmp_path: Path) -> None:
    write_new(tmp_path / "open", b"key", private=False)
    (tmp_path / "key").symlink_to(tmp_path / "open")

    with pytest.raises(KeyFileError, match="expected mode 0600, got 0644"):
        read_private(tmp_path / "key")


def test_missing_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"key: expected a file that can be read, got: No such file or directory\."):
        read_private(tmp_path / "key")


def test_key_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(KeyFileError, match=r"key: expected a file that can be read, got: Permission denied\."):
        read_private(tmp_path / "key")


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", mode=0o600)

    with pytest.raises(KeyFileError, match="expected a file, got something else"):
        read_private(tmp_path / "pipe")


def test_enormous_key_is_refused(tmp_path: Path) -> None:
    write_new(tmp_path / "key", bytes(70_000), private=True)

    with pytest.raises(KeyFileError, match="expected at most 65536 bytes, got more"):
        read_private(tmp_path / "key")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a key",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
    ],
    ids=["empty", "text", "damaged", "passphrase"],
)
@pytest.mark.parametrize("read", [read_node_key, read_signing_key, read_ec_key])
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes, read: Callable[[Path], object]) -> None:
    write_new(tmp_path / "key", content, private=True)

    with pytest.raises(
        KeyFileError, match=r"key: expected an .* key without a passphrase, got something else\. Restore"
    ):
        read(tmp_path / "key")


def test_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_private_key(tmp_path / "p256", generate_private_key(SECP256R1()), openssh=True)
    write_private_key(tmp_path / "ed25519", Ed25519PrivateKey.generate(), openssh=True)

    with pytest.raises(KeyFileError, match=r"p256: expected an EC P-384 key"):
        read_node_key(tmp_path / "p256")
    with pytest.raises(KeyFileError, match=r"p256: expected an Ed25519 key"):
        read_signing_key(tmp_path / "p256")
    with pytest.raises(KeyFileError, match=r"ed25519: expected an EC key"):
        read_ec_key(tmp_path / "ed25519")


def test_what_a_hospital_tells_of_its_keys_names_no_path(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError) as refused:
        read_private(tmp_path / "key")

    assert str(tmp_path) not in refused.value.public_reason


def test_home_is_closed_to_others_even_when_it_was_open(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)

    make_private_folder(tmp_path / "home")

    assert mode_of(tmp_path / "home") == 0o700


def test_folder_that_holds_something_is_no_new_home(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(KeyFileError, match=r"expected a new or an empty folder, got one with file\. Choose another"):
        make_private_folder(tmp_path)


@given(where=st.integers(0, 10_000), what=st.integers(1, 255), keep=st.integers(0, 10_000), openssh=st.booleans())
def test_damaged_key_is_refused_plainly(
    tmp_path_factory: pytest.TempPathFactory, where: int, what: int, keep: int, *, openssh: bool
) -> None:
    content = bytearray(private_bytes(KEY, openssh=openssh))
    content[where % len(content)] ^= what
    path = tmp_path_factory.mktemp("damaged") / "key"
    write_new(path, bytes(content[: keep or None]), private=True)

    try:
        read_node_key(path)
    except KeyFileError as error:
        assert "expected an EC P-384 key without a passphrase" in str(error)  # noqa: PT017 - either way is right
