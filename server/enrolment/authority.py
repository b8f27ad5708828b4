"""The coordinator's certificate authority and the certificate of its server.

Why an authority of its own: the hospitals trust exactly one issuer, whose fingerprint they compared by telephone, and
the server's certificate can be renewed without a hospital doing anything. Its key also signs the audit log.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared_model.errors import EnrolmentError
from shared_model.identity.address import parse_host
from shared_model.identity.key_files import private_bytes, read_ec_key, replace_whole, write_new, write_private_key

AUTHORITY_DAYS = 3652
SERVER_DAYS = 825  # the longest that common TLS clients accept
SOON_DAYS = 30
ALWAYS = ("localhost", "127.0.0.1", "::1")  # the coordinator's own commands reach the server so

_CLOCK_SKEW = timedelta(days=1)  # a hospital's clock may be behind
_USES = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": False,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}


@dataclass(frozen=True)
class Authority:
    """A certificate authority whose key is at hand.

    Attributes:
        certificate: its own certificate, which the hospitals hold.
        key: its private key, EC P-256.
    """

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey

    def sign(self, content: bytes) -> bytes:
        """Signature (ECDSA, SHA-256) of an entry of the audit log."""
        return self.key.sign(content, ECDSA(SHA256()))


def make_authority(folder: Path, *, organisation: str, now: datetime, days: int = AUTHORITY_DAYS) -> Authority:
    """Make an authority: `ca.crt` and `ca.key` (mode 0600) in a folder of mode 0700.

    Args:
        folder: where to.
        organisation: who runs the coordinator, 1 to 64 characters; hospitals see it in the certificate.
        now: this moment.
        days: how long it is valid.

    Raises:
        KeyFileError: the files exist, or cannot be written.
    """
    key = generate_private_key(SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, "hipfed coordinator CA"),
        ]
    )
    certificate = (
        x509.CertificateBuilder(
            issuer_name=name,
            subject_name=name,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - _CLOCK_SKEW,
            not_valid_after=now + timedelta(days=days),
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True, digital_signature=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    write_private_key(folder / "ca.key", key, openssh=False)
    write_new(folder / "ca.crt", certificate.public_bytes(Encoding.PEM), private=False)
    return Authority(certificate, key)


def open_authority(folder: Path, *, now: datetime) -> Authority:
    """The authority that `make_authority` made.

    Raises:
        EnrolmentError: its certificate is damaged, expired, or does not fit its key.
        KeyFileError: its key is missing, or open to others.
    """
    certificate, key = read_certificate(folder / "ca.crt"), read_ec_key(folder / "ca.key")
    if certificate.public_key() != key.public_key():
        raise EnrolmentError(
            f"{folder}: expected ca.crt and ca.key of one authority, got two that do not fit. Restore both from the "
            "same backup."
        )
    _refuse_outside_validity(certificate, folder / "ca.crt", now=now, remedy="Provision anew and enrol all hospitals.")
    return Authority(certificate, key)


def issue_server_certificate(
    folder: Path, authority: Authority, hosts: Sequence[str], *, now: datetime, days: int = SERVER_DAYS
) -> x509.Certificate:
    """Write a new key and certificate of the server, `server.crt` and `server.key` (mode 0600), over former ones.

    A crash between the two files leaves a pair that `check_server_certificate` refuses and another call mends.

    Args:
        folder: where to.
        authority: the issuer.
        hosts: DNS names and IP addresses under which hospitals reach the coordinator; its own are added.
        now: this moment.
        days: how long it is valid, 1 to 825, and never longer than its issuer.

    Raises:
        EnrolmentError: the time is out of range.
        SettingsError: a host is neither a DNS name nor an IP address.
        KeyFileError: the files cannot be written.
    """
    if not 1 <= days <= SERVER_DAYS:
        raise EnrolmentError(f"--days: expected 1 to {SERVER_DAYS}, got {days}.")
    names = [_general_name(host) for host in dict.fromkeys([*hosts, *ALWAYS])]
    issuer, key = authority.certificate, generate_private_key(SECP256R1())
    start = max(now - _CLOCK_SKEW, issuer.not_valid_before_utc)
    end = min(now + timedelta(days=days), start + timedelta(days=SERVER_DAYS), issuer.not_valid_after_utc)
    certificate = (
        x509.CertificateBuilder(
            issuer_name=issuer.subject,
            subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hipfed coordinator")]),
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=start,
            not_valid_after=end,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            ),
            critical=False,
        )
        .sign(authority.key, SHA256())
    )
    replace_whole(folder / "server.key", private_bytes(key, openssh=False), private=True)
    replace_whole(folder / "server.crt", certificate.public_bytes(Encoding.PEM), private=False)
    return certificate


def check_server_certificate(folder: Path, issuer: x509.Certificate, *, now: datetime) -> tuple[str, ...]:
    """Refuse a server certificate with which no hospital would connect; warn of what will soon be so.

    Args:
        folder: holds `server.crt` and `server.key`.
        issuer: the authority's certificate.
        now: this moment.

    Returns:
        A sentence for each certificate that expires within 30 days.

    Raises:
        EnrolmentError: it is damaged, expired, another authority's, or does not fit its key.
        KeyFileError: its key is missing, or open to others.
    """
    path = folder / "server.crt"
    certificate, key, remedy = read_certificate(path), read_ec_key(folder / "server.key"), "Run `provision --renew`."
    if certificate.public_key() != key.public_key():
        raise EnrolmentError(
            f"{folder}: expected server.crt and server.key of one renewal, got two that do not fit. {remedy}"
        )
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise EnrolmentError(
            f"{path}: expected a certificate of this coordinator's own authority, got another. {remedy}"
        ) from error
    _refuse_outside_validity(certificate, path, now=now, remedy=remedy)
    _refuse_outside_validity(issuer, Path("ca.crt"), now=now, remedy="Provision anew and enrol all hospitals.")
    return tuple(
        f"{name} expires in {left.days} days, on {one.not_valid_after_utc:%Y-%m-%d}. {what}"
        for name, one, what in (
            ("the server's certificate", certificate, remedy),
            ("the authority", issuer, "Plan to provision anew and to enrol all hospitals."),
        )
        if (left := one.not_valid_after_utc - now) < timedelta(days=SOON_DAYS)
    )


def read_certificate(path: Path) -> x509.Certificate:
    """A certificate's file.

    Raises:
        EnrolmentError: it is missing or damaged.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise EnrolmentError(
            f"{path}: expected a certificate, got: {error.strerror}. Name the right folder with --home, or run "
            "`hipfed-server provision`."
        ) from error
    except ValueError as error:
        raise EnrolmentError(
            f"{path}: expected a certificate in PEM, got something else. Restore it from the backup."
        ) from error


def verify_signature(certificate: x509.Certificate, content: bytes, signature: bytes) -> bool:
    """True if the authority with this certificate signed it (`Authority.sign`)."""
    key = certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey):
        return False
    try:
        key.verify(signature, content, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _general_name(host: str) -> x509.GeneralName:
    parsed = parse_host(host)
    return x509.DNSName(parsed) if isinstance(parsed, str) else x509.IPAddress(parsed)


def _usage(**uses: bool) -> x509.KeyUsage:
    return x509.KeyUsage(**(_USES | uses))


def _refuse_outside_validity(certificate: x509.Certificate, path: Path, *, now: datetime, remedy: str) -> None:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > end:
        raise EnrolmentError(
            f"{path}: expected a certificate that is valid, got one that ended {end:%Y-%m-%d}. {remedy}"
        )
    if now < start:
        raise EnrolmentError(
            f"{path}: expected a certificate that is valid, got one that begins {start:%Y-%m-%d}, after this machine's "
            f"clock ({now.astimezone(UTC):%Y-%m-%d}). Set the clock."
        )
