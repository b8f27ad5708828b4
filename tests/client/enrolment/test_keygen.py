import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key
from typer.testing import CliRunner

from client.cli import app
from client.enrolment.keygen import make_hospital
from client.home import HospitalHome, HospitalSettings
from shared_model.errors import KeyFileError, SettingsError
from shared_model.identity.enrolment_request import parse_request
from shared_model.identity.key_files import read_node_key, read_signing_key

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
Keygen = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path) -> HospitalHome:
    return HospitalHome(tmp_path / "hospital")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "patients").mkdir()
    return tmp_path / "patients"


@pytest.fixture
def keygen(home: HospitalHome, data: Path) -> Keygen:
    def run(**options: str) -> Result:
        given = {
            "name": "east",
            "data": str(data),
            "server": "fed.example.org:9443",
            "home": str(home.folder),
        } | options
        words = [word for key, value in given.items() for word in (f"--{key}", value)]
        return CliRunner().invoke(app, ["keygen", *words])

    return run


def test_keygen_makes_keys_that_only_this_user_may_read(home: HospitalHome, keygen: Keygen) -> None:
    result = keygen()

    assert result.exit_code == 0, result.output
    modes = {
        str(path.relative_to(home.folder)): path.stat().st_mode & 0o777
        for path in (home.folder, *home.folder.rglob("*"))
    }
    assert modes == {
        ".": 0o700,
        "hospital.toml": 0o600,
        "keys": 0o700,
        "keys/node": 0o600,
        "keys/node.pub": 0o644,
        "keys/signing": 0o600,
        "keys/signing.pub": 0o644,
        "request.json": 0o644,
    }


def test_keygen_writes_a_request_of_its_own_keys(home: HospitalHome, keygen: Keygen) -> None:
    keygen()

    request = parse_request(home.request.read_bytes(), source="request.json")

    assert request.name == "east"
    assert request.node_public_key == read_node_key(home.node_key).public_key()
    assert request.signing_public_key == read_signing_key(home.signing_key).public_key()


def test_request_holds_no_private_key(home: HospitalHome, keygen: Keygen) -> None:
    keygen()

    request = home.request.read_text()

    assert "PRIVATE" not in request
    assert set(json.loads(request)) == {
        *("version", "name", "created", "nonce"),
        *("node_key", "node_signature", "signing_key", "signing_signature"),
    }


def test_keys_are_in_the_format_that_flower_reads(home: HospitalHome, keygen: Keygen) -> None:
    keygen()

    private = load_ssh_private_key(home.node_key.read_bytes(), None)
    public = load_ssh_public_key(home.node_key.with_suffix(".pub").read_bytes())

    assert private.public_key() == public


def test_keygen_says_what_to_do_next(home: HospitalHome, keygen: Keygen) -> None:
    result = keygen()

    request = parse_request(home.request.read_bytes(), source="request.json")
    assert f"fingerprint of the request: {request.fingerprint}" in result.output
    assert f"1. Send {home.request} to the coordinator." in result.output
    assert f"openssl x509 -noout -fingerprint -sha256 -in {home.authority}" in result.output


def test_settings_are_read_as_keygen_wrote_them(home: HospitalHome, data: Path, keygen: Keygen) -> None:
    keygen()

    assert home.read_settings() == HospitalSettings(
        name="east", data=str(data), server="fed.example.org:9443", cache=str(home.folder / "cache")
    )


def test_keys_are_never_overwritten(home: HospitalHome, keygen: Keygen) -> None:
    keygen()
    before = home.node_key.read_bytes()

    result = keygen()

    assert result.exit_code == 1
    assert "expected a new or an empty folder, got one with hospital.toml, keys, request.json" in result.output
    assert home.node_key.read_bytes() == before


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("name", "St. Mary", "hipfed-client keygen, name: expected 1 to 64 letters"),
        ("server", "fed.example.org", "hipfed-client keygen, server: expected HOST:PORT"),
    ],
)
def test_keygen_is_refused_and_leaves_nothing(
    home: HospitalHome, keygen: Keygen, option: str, value: str, said: str
) -> None:
    result = keygen(**{option: value})

    assert result.exit_code == 1
    assert said in result.output
    assert not home.folder.exists()


@pytest.mark.parametrize("folder", [".", "keys-here"])
def test_keys_do_not_lie_among_the_patients(data: Path, keygen: Keygen, folder: str) -> None:
    result = keygen(home=str(data / folder))

    assert result.exit_code == 1
    assert "expected a folder apart from the patients'" in result.output
    assert list(data.iterdir()) == []


def test_name_of_a_folder_that_cannot_be_written_down_is_refused(home: HospitalHome) -> None:
    settings = HospitalSettings(name="east", data="/a\nb", server="fed.example.org:1", cache="/c")

    with pytest.raises(SettingsError, match=r"data: expected text that can be printed, got '/a\\nb'"):
        make_hospital(home, settings, now=NOW)

    assert not home.folder.exists()


def test_fresh_request_keeps_the_keys(home: HospitalHome, keygen: Keygen) -> None:
    keygen()
    first = parse_request(home.request.read_bytes(), source="request.json")

    result = CliRunner().invoke(app, ["request", "--home", str(home.folder)])

    second = parse_request(home.request.read_bytes(), source="request.json")
    assert result.exit_code == 0, result.output
    assert f"fingerprint of the request: {second.fingerprint}" in result.output
    assert (second.node_key, second.signing_key, second.name) == (first.node_key, first.signing_key, first.name)
    assert second.nonce != first.nonce


@pytest.mark.parametrize("key", ["node", "signing"])
def test_fresh_request_is_refused_when_others_may_read_a_key(home: HospitalHome, keygen: Keygen, key: str) -> None:
    keygen()
    (home.folder / "keys" / key).chmod(0o640)

    result = CliRunner().invoke(app, ["request", "--home", str(home.folder)])

    assert result.exit_code == 1
    assert f"keys/{key}: expected mode 0600, got 0640" in result.output


@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_home_that_others_may_change_is_refused(home: HospitalHome, keygen: Keygen, mode: int) -> None:
    keygen()
    home.folder.chmod(mode)

    with pytest.raises(
        KeyFileError, match=rf"that nobody else may change, got one of user {os.geteuid()} with mode 07"
    ):
        home.read_settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('data = "patients"', "data: expected a folder's whole path, from / on, got 'patients'"),
        ('server = "fed"', "server: expected HOST:PORT"),
        ('name = "a/b"', "name: expected 1 to 64 letters"),
        ("cache = 1", "cache: Input should be a valid string, got 1"),
        ('colour = "red"', "colour: Extra inputs are not permitted"),
    ],
)
def test_wrong_settings_are_refused(home: HospitalHome, keygen: Keygen, text: str, said: str) -> None:
    keygen()
    key = text.partition(" ")[0]
    lines = [line for line in home.settings_file.read_text().splitlines() if not line.startswith(key)]
    home.settings_file.write_text("\n".join([*lines, text]))

    with pytest.raises(SettingsError) as refused:
        home.read_settings()

    assert said in str(refused.value)


def test_missing_home_says_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["request", "--home", str(tmp_path / "none")])

    assert result.exit_code == 1
    assert "Name the right --home, or run `hipfed-client keygen` first." in result.output


@pytest.mark.parametrize("program", ["client", "server"])
def test_commands_start_without_torch(program: str) -> None:
    code = f"import sys, {program}.cli; print(*sorted({{'torch', 'flwr', 'typer'}} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["typer"]


def test_home_whose_path_no_socket_can_have_is_refused(keygen: Keygen, tmp_path: Path) -> None:
    result = keygen(home=str(tmp_path / ("x" * 100)))

    assert result.exit_code == 1
    assert "expected a path of at most 107 bytes" in result.stderr
    assert not (tmp_path / ("x" * 100)).exists()
