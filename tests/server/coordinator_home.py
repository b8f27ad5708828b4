"""A coordinator on loopback with enrolled hospitals, as its own commands make it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from server.enrolment.authority import open_authority
from server.enrolment.coordinator_home import CoordinatorHome, CoordinatorSettings, provision
from server.enrolment.enrol import enrol as enrol_hospital
from server.enrolment.enrol import revoke as revoke_hospital
from server.enrolment.registry import Registry
from shared_model.identity.enrolment_request import make_request
from shared_model.identity.key_files import write_private_key
from shared_model.process.ports import free_ports


def make_home(path: Path, hospitals: Sequence[str] = ()) -> CoordinatorHome:
    """A coordinator on loopback; the hospitals' private node keys are `path/../NAME.key`."""
    port, superlink_port = free_ports(2)
    settings = CoordinatorSettings(
        address=f"127.0.0.1:{port}", organisation="Test", superlink_port=superlink_port, listen="127.0.0.1"
    )
    home = CoordinatorHome(path)
    provision(home, settings, now=datetime.now(UTC), days=90)
    for name in hospitals:
        enrol(path, name)
    return home


def enrol(path: Path, name: str) -> ec.EllipticCurvePrivateKey:
    """Enrol a hospital with a new key."""
    key, now = make_node_key(path.parent / f"{name}.key"), datetime.now(UTC)
    request = make_request(name, node_key=key, signing_key=Ed25519PrivateKey.generate(), now=now)
    home = CoordinatorHome(path)
    with home.open_registry() as registry:
        enrol_hospital(registry, request, open_authority(home.authority, now=now), now=now)
    return key


def make_node_key(file: Path) -> ec.EllipticCurvePrivateKey:
    """A new private key of a SuperNode."""
    key = ec.generate_private_key(ec.SECP384R1())
    write_private_key(file, key, openssh=True)
    return key


def revoke(path: Path, name: str) -> None:
    """Revoke a hospital in the registry."""
    home, now = CoordinatorHome(path), datetime.now(UTC)
    with home.open_registry() as registry:
        revoke_hospital(registry, name, "a test", open_authority(home.authority, now=now), now=now)


def is_active(registry: Registry, node_key_pem: bytes) -> bool:
    """Whether a node key in PEM is that of a hospital that may take part now."""
    hospital = registry.hospital_of_key(node_key_pem)
    return hospital is not None and hospital.is_active
