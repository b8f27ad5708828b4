"""The hospital's part in secure sums: its keys and shares of a session, its masked answers, and what opens a sum.

What a session needs between two messages lies in a private file below the run's folder, so that a worker that starts
again goes on with it.
"""

import base64
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jaxtyping import UInt64

from client.outbound import Gate
from client.site import Site
from shared_model.config import Settings
from shared_model.errors import SecureSumError
from shared_model.privacy.secure_sum.participant import KeyOffer, Participant, ParticipantState
from shared_model.privacy.secure_sum.session import Session
from shared_model.process.files import replace_file
from shared_model.protocol.messages import StudyReference
from shared_model.protocol.sum_messages import (
    ConfirmReply,
    ConfirmRequest,
    KeysRequest,
    Offer,
    OpenReply,
    OpenRequest,
    SharesReply,
    SharesRequest,
    TextsReply,
    TextsRequest,
)

Mask = Callable[[UInt64[np.ndarray, "n"]], UInt64[np.ndarray, "n"]]
_KEY_FILE = "sum-signing.key"


def signing_key(site: Site) -> Ed25519PrivateKey:
    """The key with which the hospital signs its offers; made at the first use, and kept."""
    path = site.state_dir / _KEY_FILE
    if not path.exists():
        replace_file(path, Ed25519PrivateKey.generate().private_bytes_raw(), mode=0o600)
    return Ed25519PrivateKey.from_private_bytes(path.read_bytes())


def answer_keys(site: Site, settings: Settings, request: KeysRequest, gate: Gate) -> Offer:  # noqa: ARG001
    """Begin a session, and offer keys; the same keys where it has begun.

    Raises:
        SecureSumError: the session is none of this run, has too few hospitals, or not this one.
    """
    session = request.session
    if session.purpose.split(" ")[0] != request.study.run_id or len(session.members) < gate.rule.min_sites:
        raise SecureSumError(
            f"secure sum: expected a session of this run with at least {gate.rule.min_sites} hospitals, got another."
        )
    kept = _KeptSession.of(site, request.study.run_id, session.sha256)
    participant = kept.read() if kept.path.exists() else Participant(session, site.name, signing_key(site))
    kept.write(session, participant.state)
    return Offer.of(participant.offer_keys())


def answer_shares(site: Site, settings: Settings, request: SharesRequest, gate: Gate) -> SharesReply:  # noqa: ARG001
    """Share the session's secrets among those who offered keys."""
    kept = _KeptSession.of(site, request.study.run_id, request.session)
    participant = kept.read()
    texts = participant.share_keys({name: offer.to_offer() for name, offer in request.offers.items()})
    kept.write(participant.session, participant.state)
    return SharesReply(texts={name: text.hex() for name, text in texts.items()})


def answer_texts(site: Site, settings: Settings, request: TextsRequest, gate: Gate) -> TextsReply:  # noqa: ARG001
    """Take what the others have shared."""
    kept = _KeptSession.of(site, request.study.run_id, request.session)
    participant = kept.read()
    participant.take_shares({name: bytes.fromhex(text) for name, text in request.texts})
    kept.write(participant.session, participant.state)
    return TextsReply()


def answer_confirm(site: Site, settings: Settings, request: ConfirmRequest, gate: Gate) -> ConfirmReply:  # noqa: ARG001
    """Confirm whose answers a sum holds."""
    kept = _KeptSession.of(site, request.study.run_id, request.session)
    participant = kept.read()
    signature = participant.confirm(request.round, request.answered)
    kept.write(participant.session, participant.state)
    return ConfirmReply(signature=signature.hex())


def answer_open(site: Site, settings: Settings, request: OpenRequest, gate: Gate) -> OpenReply:  # noqa: ARG001
    """Give shares of what masks a sum.

    Raises:
        SecureSumError: as `Participant.open_masks`; or the sum is over fewer hospitals than the rule allows.
    """
    if len(request.answered) < gate.rule.min_sites:
        raise SecureSumError(
            f"round {request.round}: expected at least {gate.rule.min_sites} hospitals in the sum, got fewer."
        )
    kept = _KeptSession.of(site, request.study.run_id, request.session)
    participant = kept.read()
    confirmations = {name: bytes.fromhex(signature) for name, signature in request.confirmations.items()}
    shares = participant.open_masks(request.round, request.answered, confirmations)
    kept.write(participant.session, participant.state)
    return OpenReply.of(shares)


def mask_of(site: Site, study: StudyReference) -> Mask | None:
    """What masks the answer to a question; None where its sum is not a secure one.

    Raises:
        SecureSumError: the session is not known here.
    """
    sum_round = study.sum_round
    if sum_round is None:
        return None
    kept = _KeptSession.of(site, study.run_id, sum_round.session)
    participant = kept.read()

    def mask(values: UInt64[np.ndarray, "n"]) -> UInt64[np.ndarray, "n"]:
        masked = participant.mask(sum_round.round, values)
        kept.write(participant.session, participant.state)  # before the answer leaves: the round is used
        return masked

    return mask


@dataclass(frozen=True)
class _KeptSession:
    """A session's file.

    Attributes:
        path: of the file.
        site: the hospital.
    """

    path: Path
    site: Site

    @classmethod
    def of(cls, site: Site, run_id: str, session: str) -> "_KeptSession":
        return cls(site.state_dir / "runs" / run_id / "secure-sums" / f"{session}.json", site)

    def read(self) -> Participant:
        """The participant as the last message left it.

        Raises:
            SecureSumError: there is none.
        """
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"), object_hook=_decode)
        except FileNotFoundError as error:
            raise SecureSumError(
                "secure sum: expected a session that this hospital has begun, got another. It takes part in the next."
            ) from error
        state = content["state"] | {
            "offers": {name: KeyOffer(**_tuples(offer)) for name, offer in content["state"]["offers"].items()},
            "masked": {int(round_): digest for round_, digest in content["state"]["masked"].items()},
            "answered": {int(round_): tuple(names) for round_, names in content["state"]["answered"].items()},
        }
        return Participant(
            Session(**content["session"]), self.site.name, signing_key(self.site), ParticipantState(**state)
        )

    def write(self, session: Session, state: ParticipantState) -> None:
        """Keep it, for its owner alone."""
        told = {name: value for name, value in asdict(session).items() if not name.startswith("_")}
        text = json.dumps({"session": told, "state": asdict(state)}, default=_encode)
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(self.path, text.encode(), mode=0o600)
        os.utime(self.path.parents[1])  # the run is in use


def _tuples(offer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in offer.items()}


def _encode(value: object) -> dict[str, str]:
    if not isinstance(value, bytes):
        raise TypeError(f"expected bytes, got {type(value).__name__}")
    return {"base64": base64.b64encode(value).decode()}


def _decode(value: dict[str, Any]) -> Any:
    return base64.b64decode(value["base64"]) if set(value) == {"base64"} else value
