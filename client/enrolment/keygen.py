"""A hospital's keys and its request to take part. The private halves never leave the hospital."""

from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.home import HospitalHome, HospitalSettings
from shared_model.identity.enrolment_request import EnrolmentRequest, make_request, openssh_text
from shared_model.identity.key_files import (
    make_private_folder,
    read_node_key,
    read_signing_key,
    replace_whole,
    write_new,
    write_private_key,
)
from shared_model.process.toml_file import toml_bytes


def make_hospital(home: HospitalHome, settings: HospitalSettings, *, now: datetime) -> EnrolmentRequest:
    """Make a new home: keys, request and settings.

    Args:
        home: a folder that does not exist or is empty.
        settings: the hospital's.
        now: this moment.

    Returns:
        The request, as request.json holds it.

    Raises:
        KeyFileError: the folder holds something already, or cannot be written.
        SettingsError: the name of a folder cannot be printed.
    """
    content = toml_bytes(settings.model_dump())
    make_private_folder(home.folder)
    node_key, signing_key = generate_private_key(SECP384R1()), Ed25519PrivateKey.generate()
    for path, key in ((home.node_key, node_key), (home.signing_key, signing_key)):
        write_private_key(path, key, openssh=True)
        write_new(path.with_suffix(".pub"), f"{openssh_text(key.public_key())}\n".encode(), private=False)
    request = make_request(settings.name, node_key=node_key, signing_key=signing_key, now=now)
    write_new(home.request, request.to_json(), private=False)
    write_new(home.settings_file, content, private=True)  # last: who has settings has all the rest
    return request


def renew_request(home: HospitalHome, *, now: datetime) -> EnrolmentRequest:
    """Replace request.json by a fresh one with the same name and keys.

    Args:
        home: the hospital's.
        now: this moment.

    Returns:
        The request.

    Raises:
        KeyFileError: a key is missing, open to others or of another kind; or the file cannot be written.
        SettingsError: hospital.toml is missing or wrong.
    """
    settings = home.read_settings()
    node_key, signing_key = read_node_key(home.node_key), read_signing_key(home.signing_key)
    request = make_request(settings.name, node_key=node_key, signing_key=signing_key, now=now)
    replace_whole(home.request, request.to_json(), private=False)
    return request
