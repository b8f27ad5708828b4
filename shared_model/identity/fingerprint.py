"""Short names of keys and certificates that two people compare by telephone."""

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

_GROUPS = 8


def spoken_fingerprint(content: bytes) -> str:
    """The first 128 bits of a SHA-256, as eight groups of four hexadecimal digits.

    128 bits are enough against a second content with the same name, which is what a forger needs here.

    >>> spoken_fingerprint(b"abc")
    'ba78 16bf 8f01 cfea 4141 40de 5dae 2223'
    """
    digits = hashlib.sha256(content).hexdigest()
    return " ".join(digits[4 * i : 4 * i + 4] for i in range(_GROUPS))


def same_fingerprint(one: str, other: str) -> bool:
    """True if two fingerprints agree, however they are spaced, hyphenated or capitalised."""
    return _digits(one) == _digits(other)


def certificate_fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate as `openssl x509 -noout -fingerprint -sha256` prints it."""
    return certificate.fingerprint(SHA256()).hex(":").upper()


def _digits(fingerprint: str) -> str:
    return "".join(character for character in fingerprint.casefold() if character.isalnum())
