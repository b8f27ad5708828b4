"""Messages of secure sums: keys and shares at a session's beginning, and what opens a round's sum.

Bytes travel as hexadecimal text. A round's sum is asked for by any question whose study reference names the round; its
answer holds one array, the masked integers.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, TypeVar

from pydantic import Field, StringConstraints

from shared_model.privacy.secure_sum.participant import KeyOffer, OpenedShares
from shared_model.privacy.secure_sum.session import Session
from shared_model.protocol.messages import MAX_SUM_ROUNDS, Message, Request, Sha256, SiteName

A = TypeVar("A")
B = TypeVar("B")

Hex = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2})*$", max_length=1_000_000)]
Key = Sha256  # 32 bytes
Signature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
Count = Annotated[int, Field(ge=1, le=MAX_SUM_ROUNDS)]


class KeysRequest(Request):
    """Coordinator to hospital: begin a session with these hospitals, and offer your keys.

    Attributes:
        purpose: as in `Session`, likewise `threshold`, `rounds`, `colluding`.
        members: public signing keys by hospital's name.
    """

    purpose: str = Field(max_length=500)
    members: dict[SiteName, Key] = Field(max_length=1024)
    threshold: Count
    rounds: Count
    colluding: int = Field(ge=0, le=1024)

    @property
    def session(self) -> Session:
        """The session that is proposed.

        Raises:
            SecureSumError: it is none that hospitals may agree to.
        """
        members = {name: bytes.fromhex(key) for name, key in self.members.items()}
        return Session(self.purpose, members, self.threshold, self.rounds, self.colluding)


class Offer(Message):
    """A hospital's public keys of a session, see `KeyOffer`."""

    channel: Key
    rounds: tuple[Key, ...]
    seeds: tuple[Key, ...]
    signature: Signature

    @classmethod
    def of(cls, offer: KeyOffer) -> "Offer":
        """The message of an offer."""
        return cls(
            channel=offer.channel.hex(),
            rounds=tuple(key.hex() for key in offer.rounds),
            seeds=tuple(seed.hex() for seed in offer.seeds),
            signature=offer.signature.hex(),
        )

    def to_offer(self) -> KeyOffer:
        """The offer."""
        rounds, seeds = (tuple(map(bytes.fromhex, part)) for part in (self.rounds, self.seeds))
        return KeyOffer(bytes.fromhex(self.channel), rounds, seeds, bytes.fromhex(self.signature))


class SharesRequest(Request):
    """Coordinator to hospital: these are all hospitals' keys; share your secrets among them.

    Attributes:
        session: hash of the session.
        offers: by hospital's name.
    """

    session: Sha256
    offers: dict[SiteName, Offer] = Field(max_length=1024)


class SharesReply(Message):
    """Hospital to coordinator, who passes them on: shares, each encrypted to one other hospital."""

    texts: dict[SiteName, Hex] = Field(max_length=1024)


class TextsRequest(Request):
    """Coordinator to hospital: what the others have encrypted to you.

    Attributes:
        session: hash of the session.
        texts: name of the hospital that encrypted, and its text.
    """

    session: Sha256
    texts: tuple[tuple[SiteName, Hex], ...] = Field(default=(), max_length=1024)


class TextsReply(Message):
    """Hospital to coordinator: all shares are here."""


class ConfirmRequest(Request):
    """Coordinator to hospital: confirm whose answers a round's sum holds; asked where somebody was lost.

    Attributes:
        session: hash of the session.
        round: of the session.
        answered: hospitals in the sum.
    """

    session: Sha256
    round: int = Field(ge=0, lt=MAX_SUM_ROUNDS)
    answered: tuple[SiteName, ...] = Field(max_length=1024)


class ConfirmReply(Message):
    """Hospital to coordinator, who passes it on: a signature of the set."""

    signature: Signature


class OpenRequest(ConfirmRequest):
    """Coordinator to hospital: your shares of what masks this sum.

    Attributes:
        confirmations: signatures by hospital; none where nobody was lost.
    """

    confirmations: dict[SiteName, Signature] = Field(default_factory=dict, max_length=1024)


class OpenReply(Message):
    """Hospital to coordinator: shares, see `OpenedShares`."""

    own_masks: dict[SiteName, Key] = Field(max_length=1024)
    lost_keys: dict[SiteName, Key] = Field(max_length=1024)

    @classmethod
    def of(cls, shares: OpenedShares) -> "OpenReply":
        """The message of shares."""
        return cls(own_masks=_convert(bytes.hex, shares.own_masks), lost_keys=_convert(bytes.hex, shares.lost_keys))

    def to_shares(self) -> OpenedShares:
        """The shares."""
        return OpenedShares(_convert(bytes.fromhex, self.own_masks), _convert(bytes.fromhex, self.lost_keys))


def _convert(change: Callable[[A], B], values: Mapping[str, A]) -> dict[str, B]:
    return {name: change(value) for name, value in values.items()}
