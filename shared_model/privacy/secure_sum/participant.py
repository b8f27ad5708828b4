"""A hospital in a session of secure sums: its keys, its masks, and what it tells of others' keys.

| step | takes | gives |
|---|---|---|
| `offer_keys` | nothing | one-time public keys of every round, signed |
| `share_keys` | the others' offers | for each other hospital, encrypted to it, shares of every round's two secrets |
| `mask` | a round's integers | the same plus masks: uniform for who lacks the others' keys |
| `confirm` | who answered, where somebody was lost | a signature: it opens no other set of this round |
| `open_masks` | who answered, and their confirmations where somebody was lost | one share for each hospital |

Each round has two secrets: the seed of the hospital's own mask, of which shares are given where it answered, and the
key of the masks that it shares with each other hospital, of which shares are given where it was lost. Never both.
"""

import hashlib
import os
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from jaxtyping import UInt64

from shared_model.errors import SecureSumError
from shared_model.privacy.secure_sum.masks import agree_key, derive_key, expand_mask
from shared_model.privacy.secure_sum.secret_sharing import SECRET_BYTES, split_secret
from shared_model.privacy.secure_sum.session import FEWEST, Session

OFFER, SURVIVORS = "offer of keys", "those who answered"
_KEY_BYTES = 32
_NONCE = bytes(12)  # each key encrypts one text


@dataclass(frozen=True)
class KeyOffer:
    """A hospital's one-time public keys (X25519).

    Attributes:
        channel: for what other hospitals encrypt to it.
        rounds: for the masks of each round.
        seeds: hash of the seed of the hospital's own mask, of each round.
        signature: of all of them, by the hospital's signing key.
    """

    channel: bytes
    rounds: tuple[bytes, ...]
    seeds: tuple[bytes, ...]
    signature: bytes

    @property
    def parts(self) -> tuple[bytes, ...]:
        """What is signed."""
        return (self.channel, *self.rounds, *self.seeds)


@dataclass(frozen=True)
class OpenedShares:
    """What one hospital tells of a round's secrets, by hospital.

    Attributes:
        own_masks: shares of the seeds of those who answered.
        lost_keys: shares of the keys of those who were lost.
    """

    own_masks: Mapping[str, bytes]
    lost_keys: Mapping[str, bytes]


@dataclass
class ParticipantState:
    """What a hospital must remember of a session between two messages; secret but for the others' offers.

    Attributes:
        channel: private key for what the others encrypt.
        keys: private keys of each round.
        seeds: of the hospital's own masks.
        offers: all hospitals' public keys; none before the shares are made.
        held: by hospital, its shares for this one.
        masked: by round, hash of the integers that were masked in it.
        answered: by round, the only set of hospitals that this one confirms and opens.
    """

    channel: bytes
    keys: list[bytes]
    seeds: list[bytes]
    offers: dict[str, KeyOffer] = field(default_factory=dict)
    held: dict[str, bytes] = field(default_factory=dict)
    masked: dict[int, bytes] = field(default_factory=dict)
    answered: dict[int, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def draw(cls, rounds: int) -> Self:
        """New secrets from the system's generator."""
        secrets = [os.urandom(SECRET_BYTES) for _ in range(2 * rounds + 1)]
        return cls(secrets[0], secrets[1 : rounds + 1], secrets[rounds + 1 :])


class Participant:
    """One hospital; each round's secrets are used once.

    Args:
        session: that it has agreed to.
        name: of the hospital.
        signing_key: whose public half the session names.
        state: of an earlier step of the same session; None to begin one.

    Raises:
        SecureSumError: the session does not name this hospital with this key.
    """

    def __init__(
        self, session: Session, name: str, signing_key: Ed25519PrivateKey, state: ParticipantState | None = None
    ) -> None:
        if session.members.get(name) != signing_key.public_key().public_bytes_raw():
            raise SecureSumError(f"{name}: expected this hospital's own signing key in the study's list, got another.")
        self._session, self._name, self._signing_key = session, name, signing_key
        self.state = state or ParticipantState.draw(session.rounds)
        self._channel = X25519PrivateKey.from_private_bytes(self.state.channel)
        self._keys = [X25519PrivateKey.from_private_bytes(key) for key in self.state.keys]

    @property
    def session(self) -> Session:
        """What it has agreed to."""
        return self._session

    @cached_property
    def _own_offer(self) -> KeyOffer:
        channel = self._channel.public_key().public_bytes_raw()
        rounds = tuple(key.public_key().public_bytes_raw() for key in self._keys)
        seeds = tuple(hash_seed(self._session, i, seed) for i, seed in enumerate(self.state.seeds))
        unsigned = KeyOffer(channel, rounds, seeds, b"")
        return replace(unsigned, signature=self._session.sign(self._signing_key, OFFER, *unsigned.parts))

    def offer_keys(self) -> KeyOffer:
        """The hospital's public keys."""
        return self._own_offer

    def share_keys(self, offers: Mapping[str, KeyOffer]) -> dict[str, bytes]:
        """Take the offers of all who take part in the session's sums, and share each round's secrets among them.

        Args:
            offers: by hospital, this one's own among them; at least the threshold.

        Returns:
            For each other hospital, what only it can read.

        Raises:
            SecureSumError: an offer is not signed by a member, repeats another's key, or this hospital's own is not as
                it made it; or other offers were taken before.
        """
        self._check_offers(offers)
        if self.state.offers:
            raise SecureSumError("offers: expected those of a session's beginning once, got them again.")
        self.state.offers = dict(offers)
        secrets = zip(self.state.seeds, self.state.keys, strict=True)
        shares = [
            [split_secret(secret, threshold=self._session.threshold, n=len(self._session.members)) for secret in pair]
            for pair in secrets
        ]
        texts = {
            name: b"".join(share[self._session.index(name) - 1] for pair in shares for share in pair)
            for name in self.state.offers
        }
        self.state.held[self._name] = texts.pop(self._name)
        return {name: self._encrypt(name, text) for name, text in texts.items()}

    def take_shares(self, texts: Mapping[str, bytes]) -> None:
        """Keep what the others have shared, as they encrypted it to this hospital.

        Raises:
            SecureSumError: a text is not that hospital's, was changed, or one is missing.
        """
        missing = sorted(set(self.state.offers) - {self._name} - set(texts))
        if missing:
            raise SecureSumError(f"shares: expected those of all who offered keys, got none of {', '.join(missing)}.")
        self.state.held |= {name: self._decrypt(name, texts[name]) for name in self.state.offers if name != self._name}

    def mask(self, round_: int, values: UInt64[np.ndarray, "n"]) -> UInt64[np.ndarray, "n"]:
        """A round's integers under this hospital's masks, modulo 2^64.

        The same integers once more give the same answer, as where a message was lost.

        Raises:
            SecureSumError: the round is none of the session, other integers were masked in it before, or not all shares
                have been taken.
        """
        digest = hashlib.sha256(values.astype("<u8").tobytes()).digest()
        if not 0 <= round_ < self._session.rounds or self.state.masked.get(round_, digest) != digest:
            raise SecureSumError(f"round {round_}: expected a new one of {self._session.rounds}, got another.")
        if not self.state.offers or set(self.state.held) != set(self.state.offers):
            raise SecureSumError("secure sum: expected every hospital's shares before the first sum, got fewer.")
        self.state.masked[round_] = digest
        masked = values.copy()
        masked += expand_mask(own_mask_key(self._session, round_, self.state.seeds[round_]), len(values))
        for name, offer in self.state.offers.items():
            if name != self._name:
                own, other = self._keys[round_], offer.rounds[round_]
                pair = expand_mask(pair_mask_key(self._session, round_, own, other, self._name, name), len(values))
                np.add(masked, pair, out=masked) if self._name < name else np.subtract(masked, pair, out=masked)
        return masked

    def confirm(self, round_: int, answered: Collection[str]) -> bytes:
        """A signature that this hospital opens a round for these hospitals, and for no others.

        Raises:
            SecureSumError: it has signed or opened another set of this round; or the set is none that may be opened.
        """
        survivors = self._check_survivors(round_, answered)
        return self._session.sign(self._signing_key, SURVIVORS, *_survivor_parts(round_, survivors))

    def open_masks(
        self, round_: int, answered: Collection[str], confirmations: Mapping[str, bytes] | None = None
    ) -> OpenedShares:
        """This hospital's shares of a round's secrets: the seed's of those who answered, the key's of those lost.

        Args:
            round_: that was masked.
            answered: whose masked integers are in the sum.
            confirmations: by hospital; of at least the threshold of those who answered, where somebody was lost.

        Raises:
            SecureSumError: too few answered, this hospital did not, it has opened the round for others, or somebody was
                lost and too few of those who answered have confirmed the same set.
        """
        survivors = self._check_survivors(round_, answered)
        lost = set(self.state.offers) - survivors
        if lost:
            self._check_confirmations(round_, survivors, confirmations or {})
        return OpenedShares(
            own_masks={name: self._share(name, round_, 0) for name in sorted(survivors)},
            lost_keys={name: self._share(name, round_, 1) for name in sorted(lost)},
        )

    def _share(self, name: str, round_: int, which: int) -> bytes:
        start = (2 * round_ + which) * SECRET_BYTES
        return self.state.held[name][start : start + SECRET_BYTES]

    def _check_offers(self, offers: Mapping[str, KeyOffer]) -> None:
        if offers.get(self._name) != self._own_offer:
            raise SecureSumError(f"{self._name}: expected this hospital's own offer among all, got another.")
        if len(offers) < max(self._session.threshold, 2):
            raise SecureSumError(f"offers: expected at least {self._session.threshold}, got {len(offers)}.")
        seen: set[bytes] = set()
        for name, offer in offers.items():
            self._session.verify(name, offer.signature, OFFER, *offer.parts)
            keys, n = (offer.channel, *offer.rounds), self._session.rounds
            if (len(offer.rounds), len(offer.seeds)) != (n, n) or any(len(key) != _KEY_BYTES for key in offer.parts):
                raise SecureSumError(f"{name}: expected a key for each of {self._session.rounds} rounds, got others.")
            if len({*seen, *keys}) < len(seen) + len(keys):  # two hospitals of one key would cancel each other's masks
                raise SecureSumError(f"{name}: expected keys that nobody else has offered, got one a second time.")
            seen.update(keys)

    def _check_confirmations(self, round_: int, survivors: frozenset[str], confirmations: Mapping[str, bytes]) -> None:
        """As many as the threshold: of two sets, both could not have so many honest hospitals."""
        for name, signature in sorted(confirmations.items()):
            self._session.verify(name, signature, SURVIVORS, *_survivor_parts(round_, survivors))
        n = len(survivors & confirmations.keys())
        if n < self._session.threshold:
            raise SecureSumError(
                f"round {round_}: expected confirmations of at least {self._session.threshold} hospitals, got {n}."
            )

    def _check_survivors(self, round_: int, answered: Collection[str]) -> frozenset[str]:
        survivors = frozenset(answered)
        if len(survivors) != len(answered):
            raise SecureSumError(f"round {round_}: expected each hospital once, got one twice.")
        if round_ not in self.state.masked or self._name not in survivors:
            raise SecureSumError(f"round {round_}: expected one that this hospital has answered, got another.")
        if not survivors <= set(self.state.offers):
            raise SecureSumError(f"round {round_}: expected hospitals of the session, got others.")
        if len(survivors) < max(self._session.threshold, FEWEST):
            raise SecureSumError(
                f"round {round_}: expected at least {max(self._session.threshold, FEWEST)} hospitals in the sum, "
                f"got {len(survivors)}."
            )
        if self.state.answered.setdefault(round_, tuple(sorted(survivors))) != tuple(sorted(survivors)):
            raise SecureSumError(f"round {round_}: expected the hospitals that were named first, got others.")
        return survivors

    def _encrypt(self, name: str, text: bytes) -> bytes:
        return ChaCha20Poly1305(self._channel_key(self._name, name)).encrypt(_NONCE, text, None)

    def _decrypt(self, name: str, text: bytes) -> bytes:
        try:
            plain = ChaCha20Poly1305(self._channel_key(name, self._name)).decrypt(_NONCE, text, None)
        except InvalidTag as error:
            raise SecureSumError(
                f"{name}: expected its shares for this hospital, got a text that was changed."
            ) from error
        if len(plain) != 2 * self._session.rounds * SECRET_BYTES:
            raise SecureSumError(f"{name}: expected two shares for each round, got another number.")
        return plain

    def _channel_key(self, sender: str, receiver: str) -> bytes:
        """One key for each direction, so that each encrypts one text and a fixed nonce is used once."""
        other = receiver if sender == self._name else sender
        purpose = self._session.bind("shares", sender.encode(), receiver.encode())
        return agree_key(self._channel, self.state.offers[other].channel, purpose=purpose)


def hash_seed(session: Session, round_: int, seed: bytes) -> bytes:
    """Hash of an own mask's seed, told beforehand: a seed that is put together of wrong shares is noticed by it."""
    return hashlib.sha256(session.bind("seed", struct.pack("<I", round_), seed)).digest()


def own_mask_key(session: Session, round_: int, seed: bytes) -> bytes:
    """The key of a hospital's own mask of a round."""
    return derive_key(seed, purpose=session.bind("own mask", struct.pack("<I", round_)))


def pair_mask_key(
    session: Session, round_: int, own: X25519PrivateKey, other: bytes, name: str, other_name: str
) -> bytes:
    """The key of the mask that two hospitals share in a round; the first in order adds it, the second subtracts it."""
    names = (part.encode() for part in sorted((name, other_name)))
    return agree_key(own, other, purpose=session.bind("pair's mask", struct.pack("<I", round_), *names))


def _survivor_parts(round_: int, survivors: Collection[str]) -> tuple[bytes, ...]:
    return (struct.pack("<I", round_), *(name.encode() for name in sorted(survivors)))
