"""A session of secure sums: its hospitals, its threshold, and the bytes that bind every key and signature to it."""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared_model.errors import SecureSumError

FEWEST = 3
"""Hospitals in a sum: of two, each knows the other's."""
_ABOUT = b"hipfed secure sum 1"


@dataclass(frozen=True)
class Session:
    """What the hospitals agree on before the first key is made; the same at each of them, or no signature fits.

    Attributes:
        purpose: names the study, the run and the phase, so that nothing of one session fits into another.
        members: public signing keys (Ed25519, 32 bytes) by the hospital's name.
        threshold: hospitals that open a sum: so many must answer to the end, and fewer can open nothing.
        rounds: sums that the session's keys are for.
        colluding: hospitals that may collude with an active coordinator.
    """

    purpose: str
    members: Mapping[str, bytes]
    threshold: int
    rounds: int
    colluding: int = 0
    _id: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        n = len(self.members)
        if n < FEWEST:
            raise SecureSumError(f"secure sum: expected at least {FEWEST} hospitals, got {n}.")
        if len(set(self.members.values())) < n:
            raise SecureSumError("secure sum: expected a signing key of its own for each hospital, got one twice.")
        if not 2 <= self.threshold <= n or 2 * self.threshold <= n + self.colluding:
            raise SecureSumError(
                f"secure sum: expected a threshold t of at most {n} hospitals with 2t > {n} + {self.colluding}, got "
                f"{self.threshold}: with less, a coordinator could ask some for one half of a mask's secret and others "
                "for the other half."
            )
        parts = [self.purpose.encode(), struct.pack("<III", self.threshold, self.rounds, self.colluding)]
        parts += [part for name in self.names for part in (name.encode(), self.members[name])]
        object.__setattr__(self, "_id", hashlib.sha256(b"".join(map(_framed, (_ABOUT, *parts)))).digest())

    @property
    def sha256(self) -> str:
        """Names the session."""
        return self._id.hex()

    @property
    def names(self) -> tuple[str, ...]:
        """The hospitals, in the order in which shares are counted."""
        return tuple(sorted(self.members))

    def index(self, name: str) -> int:
        """The index of a hospital's shares, from 1 on."""
        return self.names.index(name) + 1

    def bind(self, use: str, *parts: bytes) -> bytes:
        """The bytes that a signature, or the derivation of a key, is about: no two uses have the same."""
        return b"".join(map(_framed, (self._id, use.encode(), *parts)))

    def sign(self, key: Ed25519PrivateKey, use: str, *parts: bytes) -> bytes:
        """A hospital's signature for this session and one use."""
        return key.sign(self.bind(use, *parts))

    def verify(self, name: str, signature: bytes, use: str, *parts: bytes) -> None:
        """A signature is a member's.

        Raises:
            SecureSumError: the hospital is no member, or has not signed this.
        """
        if name not in self.members:
            raise SecureSumError(f"{name}: expected a hospital of this study's list, got another.")
        try:
            Ed25519PublicKey.from_public_bytes(self.members[name]).verify(signature, self.bind(use, *parts))
        except InvalidSignature as error:
            raise SecureSumError(f"{name}: expected its own signature of {use}, got another.") from error


def _framed(part: bytes) -> bytes:
    return struct.pack("<Q", len(part)) + part
