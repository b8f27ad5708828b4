"""Hospitals in a session of secure sums, without a network between them."""

from collections.abc import Collection, Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared_model.privacy.secure_sum.opened_sum import MaskedSum
from shared_model.privacy.secure_sum.participant import KeyOffer, OpenedShares, Participant
from shared_model.privacy.secure_sum.session import Session

NAMES = ("east", "north", "south", "west", "middle")


class Hospitals:
    """All hospitals of a session, and the coordinator's steps between them."""

    def __init__(self, n: int = 5, *, threshold: int = 4, rounds: int = 3, colluding: int = 0) -> None:
        names = NAMES[:n] if n <= len(NAMES) else [f"h{i:03d}" for i in range(n)]
        self.keys = {name: Ed25519PrivateKey.generate() for name in names}
        members = {name: key.public_key().public_bytes_raw() for name, key in self.keys.items()}
        self.session = Session("study/run/fusion", members, threshold, rounds, colluding)
        self.all = {name: Participant(self.session, name, key) for name, key in self.keys.items()}
        self.offers: dict[str, KeyOffer] = {}

    def begin(self, taking_part: Collection[str] | None = None) -> None:
        """Exchange keys and shares among those that take part."""
        chosen = {name: one for name, one in self.all.items() if taking_part is None or name in taking_part}
        self.offers = {name: one.offer_keys() for name, one in chosen.items()}
        texts = {name: one.share_keys(self.offers) for name, one in chosen.items()}
        for name, one in chosen.items():
            one.take_shares({sender: texts[sender][name] for sender in chosen if sender != name})

    def mask(self, round_: int, values: Mapping[str, np.ndarray]) -> MaskedSum:
        """Those who have values answer."""
        size = len(next(iter(values.values())))
        total = MaskedSum(self.session, round_, self.offers, size)
        for name, own in values.items():
            total.add(name, self.all[name].mask(round_, own))
        return total

    def open(self, round_: int, total: MaskedSum, *, silent: Collection[str] = ()) -> np.ndarray:
        """Everybody who answered, but for the silent ones, opens the masks."""
        return total.open(self.shares(round_, total.answered, silent=silent))

    def shares(
        self, round_: int, answered: Collection[str], *, silent: Collection[str] = ()
    ) -> dict[str, OpenedShares]:
        """Of those who answered, after each has confirmed who they are."""
        confirmed = {name: self.all[name].confirm(round_, answered) for name in answered}
        return {name: self.all[name].open_masks(round_, answered, confirmed) for name in answered if name not in silent}


def draw_values(names: Collection[str], n: int, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Integers over all of the range modulo 2^64."""
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 2**64, n, dtype=np.uint64) for name in names}


def add(values: Collection[np.ndarray]) -> np.ndarray:
    """The sum modulo 2^64."""
    total = np.zeros_like(next(iter(values)))
    for one in values:
        total = total + one
    return total
