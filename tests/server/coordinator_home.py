"""A coordinator's folder with certificates and enrolled hospitals, made without the commands that make real ones."""

from __future__ import annotations

import ipaddress
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from server.deployment.home import CoordinatorHome, open_home
from shared_model.ports import free_ports


def make_home(path: Path, hospitals: Sequence[str] = ()) -> CoordinatorHome:
    """A coordinator on loopback; the hospitals' private node keys are `path/../NAME.key`."""
    path.mkdir(mode=0o700)
    write_certificates(path)
    port, superlink_port = free_ports(2)
    (path / "coordinator.toml").write_text(
        f'address = "127.0.0.1:{port}"\nsuperlink_port = {superlink_port}\norganisation = "Test"\n'
        'listen = "127.0.0.1"\n'
    )
    with closing(sqlite3.connect(path / "registry.db")) as connection, connection:
        connection.execute("CREATE TABLE hospitals (name TEXT, node_key TEXT, revoked TEXT)")
    for name in hospitals:
        enrol(path, name)
    return open_home(path)


def enrol(path: Path, name: str) -> ec.EllipticCurvePrivateKey:
    """Enrol a hospital with a new key."""
    key = make_node_key(path.parent / f"{name}.key")
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    with closing(sqlite3.connect(path / "registry.db")) as connection, connection:
        connection.execute("INSERT INTO hospitals VALUES (?, ?, '')", (name, public))
    return key


def make_node_key(file: Path) -> ec.EllipticCurvePrivateKey:
    """A new private key of a SuperNode."""
    key = ec.generate_private_key(ec.SECP384R1())
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    file.chmod(0o600)
    return key


def revoke(path: Path, name: str) -> None:
    """Revoke a hospital in the registry."""
    with closing(sqlite3.connect(path / "registry.db")) as connection, connection:
        connection.execute("UPDATE hospitals SET revoked = '2026-01-01T00:00:00+00:00' WHERE name = ?", (name,))


def write_certificates(path: Path) -> None:
    """An authority and a certificate of this machine."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("hipfed test authority", authority_key, "hipfed test authority", authority_key, is_ca=True)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate("127.0.0.1", key, "hipfed test authority", authority_key, is_ca=False)
    for folder in ("ca", "tls"):
        (path / folder).mkdir(exist_ok=True)
    (path / "ca" / "ca.crt").write_bytes(authority.public_bytes(Encoding.PEM))
    (path / "tls" / "server.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (path / "tls" / "server.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_ca: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(_usage(is_ca=is_ca), critical=True)
        .sign(issuer_key, SHA256())
    )


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )
