"""Masks: integers modulo 2^64 that a key and a purpose determine, uniform for who lacks the key."""

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from jaxtyping import UInt64

_WORD = 8
_NONCE = bytes(16)  # counter and nonce: a key is used for one stream


def derive_key(secret: bytes, *, purpose: bytes) -> bytes:
    """A key of 32 bytes for one purpose (HKDF-SHA256, RFC 5869): keys of two purposes are independent."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(secret)


def agree_key(own: X25519PrivateKey, other: bytes, *, purpose: bytes) -> bytes:
    """The key that two parties share (X25519, RFC 7748, through HKDF).

    Args:
        own: private key.
        other: the other party's public key, 32 bytes.
        purpose: of the key.

    Raises:
        ValueError: the public key is none, or of small order.
    """
    return derive_key(own.exchange(X25519PublicKey.from_public_bytes(other)), purpose=purpose)


def expand_mask(key: bytes, n: int) -> UInt64[np.ndarray, "n"]:
    """The mask of a key: a ChaCha20 stream (RFC 8439) read as little-endian integers.

    Args:
        key: 32 bytes, from `derive_key`, used for no other stream.
        n: how many integers; at most 2^35, where the stream's counter of blocks would repeat.
    """
    stream = Cipher(ChaCha20(key, _NONCE), mode=None).encryptor().update(bytes(n * _WORD))
    return np.frombuffer(stream, dtype="<u8").astype(np.uint64, copy=False)
