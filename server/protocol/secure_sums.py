"""Secure sums over a run's hospitals: sessions of keys, and a total that is opened without any hospital's own answer.

The coordinator passes keys, encrypted shares and signatures on; what each step proves is checked at the hospitals
(shared_model/privacy/secure_sum). A session is of the hospitals that one question goes to, and lasts for many.
"""

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from server.protocol.answers import Answers
from server.protocol.quorum import Attendance, require_quorum
from shared_model.errors import ProtocolError, StudyError
from shared_model.privacy.secure_sum.opened_sum import MaskedSum
from shared_model.privacy.secure_sum.participant import KeyOffer
from shared_model.privacy.secure_sum.session import FEWEST, Session
from shared_model.protocol.messages import Request, StudyReference, SumRound
from shared_model.protocol.quantities import MASKED, Arrays, Quantities, count_integers, unpack_integers
from shared_model.protocol.sum_messages import (
    ConfirmRequest,
    KeysRequest,
    Offer,
    OpenRequest,
    SharesReply,
    SharesRequest,
    TextsRequest,
)

log = logging.getLogger("hipfed.server")

ROUNDS = 32
"""Sums of a session: so many keys are exchanged at once."""


Ask = Callable[..., Answers]


@dataclass
class _Keys:
    """A session under way.

    Attributes:
        session: of the hospitals.
        nodes: by hospital's name.
        offers: by hospital's name.
        used: rounds that were begun.
    """

    session: Session
    nodes: Mapping[str, int]
    offers: Mapping[str, KeyOffer]
    used: int = 0


@dataclass
class SecureSums:
    """The sessions of a run.

    Attributes:
        signing_keys: public keys by node, as the handshake told them.
        colluding: hospitals that may collude with an active coordinator.
        most_rounds: sums of a session.
    """

    signing_keys: Mapping[int, str]
    colluding: int
    most_rounds: int = ROUNDS
    _sessions: dict[frozenset[int], _Keys] = field(default_factory=dict)

    def begin(
        self,
        ask: Ask,
        study: StudyReference,
        names: Mapping[int, str],
        quantities: Quantities,
        *,
        agrees: Callable[[Arrays], object] | None = None,
    ) -> "MaskedReducer":
        """Begin one question's sum.

        Args:
            ask: puts a question about keys to nodes.
            study: the run.
            names: of the hospitals that are asked, by node.
            quantities: what each adds.
            agrees: raises a ProtocolError where a total contradicts itself: of a hospital's own answer nobody can tell.

        Raises:
            StudyError: too few hospitals are asked, or agree on keys.
        """
        costs: list[Attendance] = []

        def ask_and_note(request: Request, **more: Any) -> Answers:
            told = ask(request, **more)
            costs.append(told.attendance)
            return told

        nodes = frozenset(names)
        keys = self._sessions.get(nodes)
        if keys is None or keys.used == keys.session.rounds:
            keys = self._sessions[nodes] = self._exchange_keys(ask_and_note, study, names)
        keys.used += 1
        reducer = MaskedReducer(ask_and_note, study, keys, keys.used - 1, quantities)
        reducer.costs, reducer.agrees = costs, agrees
        return reducer

    def _exchange_keys(self, ask: Ask, study: StudyReference, names: Mapping[int, str]) -> _Keys:
        """A session of all hospitals that offer keys and share secrets; begun anew without those that fail."""
        left = dict(names)
        while True:
            session = self._propose(study, left)
            members = {name: key.hex() for name, key in session.members.items()}
            request = KeysRequest(
                study=study,
                purpose=session.purpose,
                members=members,
                threshold=session.threshold,
                rounds=session.rounds,
                colluding=session.colluding,
            )
            offered = ask(request, nodes=left)
            offers: dict[str, Offer] = {left[node]: offer for node, offer in offered.own.items()}
            shared = ask(SharesRequest(study=study, session=session.sha256, offers=offers), nodes=offered.own)
            if len(shared.own) == len(left):
                break
            left = {node: left[node] for node in shared.own}
        nodes = {name: node for node, name in left.items()}
        texts: dict[int, SharesReply] = dict(shared.own)

        def of(receiver: int) -> dict[str, Any]:
            given = ((left[node], reply.texts.get(left[receiver], "")) for node, reply in sorted(texts.items()))
            return {"texts": tuple((name, text) for name, text in given if name != left[receiver])}

        ask(TextsRequest(study=study, session=session.sha256), nodes=left, vary=of)
        log.info("secure sum: keys of %d sums exchanged among %s", session.rounds, ", ".join(session.names))
        return _Keys(session, nodes, {name: offer.to_offer() for name, offer in offers.items()})

    def _propose(self, study: StudyReference, names: Mapping[int, str]) -> Session:
        n = len(names)
        threshold = (n + self.colluding) // 2 + 1
        if n < FEWEST or threshold > n:
            raise StudyError(
                f"secure sum: expected at least {max(FEWEST, self.colluding + 2)} hospitals "
                f"(colluding-hospitals={self.colluding}), got {n}: {', '.join(sorted(names.values())) or 'none'}."
            )
        members = {name: bytes.fromhex(self.signing_keys[node]) for node, name in names.items()}
        return Session(f"{study.run_id} {secrets.token_hex(8)}", members, threshold, self.most_rounds, self.colluding)


class MaskedReducer:
    """One question's total, of which each hospital's part is uniform noise to the coordinator.

    Attributes:
        sum_round: what the question names.
        fewest: hospitals that must answer.
        costs: of the questions about keys.
        agrees: raises a ProtocolError where a total contradicts itself.
    """

    def __init__(self, ask: Ask, study: StudyReference, keys: _Keys, round_: int, quantities: Quantities) -> None:
        self._ask, self._study, self._keys, self._round, self._quantities = ask, study, keys, round_, quantities
        self._sum = MaskedSum(keys.session, round_, keys.offers, count_integers(quantities))
        self.sum_round: SumRound | None = SumRound(session=keys.session.sha256, round=round_)
        self.fewest = max(keys.session.threshold, FEWEST)
        self.costs: Sequence[Attendance] = ()
        self.agrees: Callable[[Arrays], object] | None = None

    def add(self, arrays: Arrays, *, where: str) -> None:
        """Add one hospital's masked integers.

        Raises:
            ProtocolError: they are not such, or the hospital's are in the sum already.
        """
        if set(arrays) != {MASKED}:
            raise ProtocolError(f"{where}: expected masked integers, got other arrays.")
        self._sum.add(where, arrays[MASKED])

    def total(self) -> Mapping[str, np.ndarray]:
        """Sums over the hospitals added so far, float64.

        Raises:
            StudyError: too few hospitals help to open the sum; nothing was opened.
            ProtocolError: what was opened contradicts itself.
        """
        session, answered = self._keys.session.sha256, self._sum.answered
        confirmations: dict[str, str] = {}
        if self._sum.lost:
            confirm = ConfirmRequest(study=self._study, session=session, round=self._round, answered=answered)
            confirmations = {name: reply.signature for name, reply in self._ask_for(confirm).items()}
        question = OpenRequest(
            study=self._study, session=session, round=self._round, answered=answered, confirmations=confirmations
        )
        shares = {name: reply.to_shares() for name, reply in self._ask_for(question).items()}
        total = unpack_integers(self._sum.open(shares), self._quantities)
        if self.agrees is not None:
            self.agrees(total)
        return total

    def _ask_for(self, request: ConfirmRequest) -> dict[str, Any]:
        """What those who answered tell, by name."""
        names = {node: name for name, node in self._keys.nodes.items() if name in self._sum.answered}
        told = self._ask(request, nodes=set(names))
        require_quorum(told.attendance, min_sites=self._keys.session.threshold, step="opening a secure sum")
        return {names[node]: reply for node, reply in told.own.items()}
