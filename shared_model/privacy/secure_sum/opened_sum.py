"""The coordinator's end of a secure sum: masked integers added, and the masks of the total taken away."""

from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from jaxtyping import UInt64

from shared_model.errors import SecureSumError
from shared_model.privacy.secure_sum.masks import expand_mask
from shared_model.privacy.secure_sum.participant import (
    KeyOffer,
    OpenedShares,
    hash_seed,
    own_mask_key,
    pair_mask_key,
)
from shared_model.privacy.secure_sum.secret_sharing import combine_shares
from shared_model.privacy.secure_sum.session import Session


class MaskedSum:
    """One round's running sum, modulo 2^64; as large as one hospital's integers.

    Args:
        session: that the coordinator has proposed.
        round_: of it.
        offers: of all who share masks.
        n: how many integers.
    """

    def __init__(self, session: Session, round_: int, offers: Mapping[str, KeyOffer], n: int) -> None:
        self._session, self._round, self._offers = session, round_, offers
        self._total = np.zeros(n, dtype=np.uint64)
        self._answered: set[str] = set()

    @property
    def answered(self) -> tuple[str, ...]:
        """Whose integers are in the sum."""
        return tuple(sorted(self._answered))

    @property
    def lost(self) -> tuple[str, ...]:
        """Who shares masks, and is not in the sum."""
        return tuple(sorted(set(self._offers) - self._answered))

    def add(self, name: str, masked: UInt64[np.ndarray, "n"]) -> None:
        """Add a hospital's masked integers.

        Raises:
            SecureSumError: it does not share masks, is in the sum already, or has another number of integers.
        """
        if name not in self._offers or name in self._answered:
            raise SecureSumError(f"{name}: expected one answer of a hospital of the session, got another.")
        if masked.dtype != np.uint64 or masked.shape != self._total.shape:
            raise SecureSumError(f"{name}: expected {self._total.size} integers of 64 bits, got others.")
        self._total += masked
        self._answered.add(name)

    def open(self, shares: Mapping[str, OpenedShares]) -> UInt64[np.ndarray, "n"]:
        """The sum over those who answered, modulo 2^64.

        Args:
            shares: by hospital that gave them; at least the threshold.

        Raises:
            SecureSumError: there are too few, or they do not give a secret that fits its public key.
        """
        total = self._total.copy()
        for name in self.answered:
            seed = self._combine({giver: given.own_masks.get(name) for giver, given in shares.items()})
            if hash_seed(self._session, self._round, seed) != self._offers[name].seeds[self._round]:
                raise SecureSumError(
                    f"{name}: expected shares of its mask's seed, got others. The sum cannot be opened."
                )
            total -= expand_mask(own_mask_key(self._session, self._round, seed), total.size)
        for name in self.lost:
            total -= self._lost_masks(name, shares)
        return total

    def _lost_masks(self, lost: str, shares: Mapping[str, OpenedShares]) -> UInt64[np.ndarray, "n"]:
        """What the masks that others share with a lost hospital have added to the total."""
        secret = self._combine({giver: given.lost_keys.get(lost) for giver, given in shares.items()})
        key = X25519PrivateKey.from_private_bytes(secret)
        if key.public_key().public_bytes_raw() != self._offers[lost].rounds[self._round]:
            raise SecureSumError(f"{lost}: expected shares of its own key, got others. The sum cannot be opened.")
        left = np.zeros_like(self._total)
        for name in self.answered:
            other = self._offers[name].rounds[self._round]
            pair = expand_mask(pair_mask_key(self._session, self._round, key, other, lost, name), left.size)
            left = left + pair if name < lost else left - pair
        return left

    def _combine(self, given: Mapping[str, bytes | None]) -> bytes:
        shares = {self._session.index(giver): share for giver, share in given.items() if share is not None}
        return combine_shares(shares, threshold=self._session.threshold)
