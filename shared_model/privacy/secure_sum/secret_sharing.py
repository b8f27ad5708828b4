"""Shamir's secret sharing of 32-byte keys: any t of n shares give the key, fewer tell nothing of it."""

from collections.abc import Mapping

from Crypto.Protocol.SecretSharing import Shamir

from shared_model.errors import SecureSumError

SECRET_BYTES = 32
_HALF = 16  # the field of pycryptodome has 2^128 elements


def split_secret(secret: bytes, *, threshold: int, n: int) -> list[bytes]:
    """Shares of a secret, the i-th for index i + 1; random, so that two calls differ.

    Args:
        secret: 32 bytes.
        threshold: how many shares give the secret; 2 to n.
        n: how many shares are made.

    Raises:
        ValueError: the secret has another length, or the threshold is out of range.
    """
    if len(secret) != SECRET_BYTES or not 2 <= threshold <= n:
        raise ValueError(f"expected {SECRET_BYTES} bytes and 2 <= threshold <= n, got {len(secret)}, {threshold}, {n}")
    halves = [Shamir.split(threshold, n, secret[i : i + _HALF], ssss=False) for i in (0, _HALF)]
    return [first[1] + second[1] for first, second in zip(*halves, strict=True)]


def combine_shares(shares: Mapping[int, bytes], *, threshold: int) -> bytes:
    """The secret.

    Args:
        shares: by index, from 1 on.
        threshold: as the secret was split with; of more shares, those with the smallest indices count.

    Raises:
        SecureSumError: there are fewer shares than the threshold, or one has another length.
    """
    if len(shares) < threshold or any(len(share) != SECRET_BYTES for share in shares.values()):
        raise SecureSumError(
            f"shares: expected at least {threshold} of {SECRET_BYTES} bytes each, got {len(shares)}. The sum cannot be "
            "opened."
        )
    chosen = sorted(shares.items())[:threshold]
    halves = (
        Shamir.combine([(index, share[i : i + _HALF]) for index, share in chosen], ssss=False) for i in (0, _HALF)
    )
    return b"".join(halves)
