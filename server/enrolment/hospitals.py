"""The hospitals by the audit log, and the changes of them that are allowed."""

from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from server.enrolment.audit_log import Entry
from shared_model.errors import EnrolmentError
from shared_model.identity.enrolment_request import EnrolmentRequest

CREATED, ENROLLED, REVOKED, RENEWED = "created", "enrolled", "revoked", "renewed"


@dataclass(frozen=True)
class EnrolledHospital:
    """A hospital that was enrolled.

    Attributes:
        node_key: public EC P-384 key in OpenSSH's format.
        signing_key: public Ed25519 key in OpenSSH's format.
        name: how it is called in every study.
        fingerprint: of its request.
        enrolled: when, UTC.
        revoked: when, UTC; empty while it may take part.
        reason: why it was revoked; empty while it may take part.
    """

    node_key: str
    signing_key: str
    name: str
    fingerprint: str
    enrolled: str
    revoked: str = ""
    reason: str = ""

    @property
    def is_active(self) -> bool:
        """True if it may take part."""
        return not self.revoked

    @property
    def node_key_pem(self) -> bytes:
        """The node key as Flower keeps it and as a SuperNode sends it: PEM of the SubjectPublicKeyInfo."""
        key = load_ssh_public_key(self.node_key.encode())
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True)
class State:
    """What follows from a log.

    Attributes:
        entries: the log.
        hospitals: in order of enrolment.
        nonces: of the requests that are used.
    """

    entries: tuple[Entry, ...]
    hospitals: tuple[EnrolledHospital, ...]
    nonces: frozenset[str]


def replay(entries: tuple[Entry, ...]) -> State:
    """The state that follows from a log."""
    hospitals: dict[str, EnrolledHospital] = {}
    nonces = set()
    for entry in entries:
        content = entry.content
        if entry.event == ENROLLED:
            nonces.add(content["nonce"])
            hospitals[content["node_key"]] = EnrolledHospital(
                node_key=content["node_key"],
                signing_key=content["signing_key"],
                name=content["name"],
                fingerprint=content["fingerprint"],
                enrolled=entry.time,
            )
        elif entry.event == REVOKED:
            key = content["node_key"]
            hospitals[key] = replace(hospitals[key], revoked=entry.time, reason=content["reason"])
    return State(entries, tuple(hospitals.values()), frozenset(nonces))


def refuse_conflict(state: State, request: EnrolmentRequest) -> None:
    """Refuse a request that was used, and a name or a key that is taken or was revoked.

    Raises:
        EnrolmentError: it is so.
    """
    if request.nonce in state.nonces:
        raise EnrolmentError(
            f"request of {request.name}: expected one that was not used before, got one that was: it is enrolled "
            "once. Ask the hospital for a new one (`hipfed-client keygen` in a new folder) if it has to enrol again."
        )
    for hospital in state.hospitals:
        if hospital.is_active and hospital.name.casefold() == request.name.casefold():
            raise EnrolmentError(
                f"request of {request.name}: expected a name of its own, got that of an enrolled hospital. Agree on "
                "another name; or revoke the enrolled one first, if this is the same hospital with new keys."
            )
        if request.node_key == hospital.node_key or request.signing_key == hospital.signing_key:
            raise EnrolmentError(
                f"request of {request.name}: expected new keys, got a key of {hospital.name}"
                f"{'' if hospital.is_active else ', which was revoked'}. Ask for new keys (`hipfed-client keygen` in a "
                "new folder)."
            )


def find_active(state: State, name: str) -> EnrolledHospital:
    """The active hospital of a name, in capitals or not.

    Raises:
        EnrolmentError: none is called so, or none any more.
    """
    hospitals = state.hospitals
    named = [hospital for hospital in hospitals if hospital.name.casefold() == name.casefold()]
    for hospital in named:
        if hospital.is_active:
            return hospital
    active = ", ".join(hospital.name for hospital in hospitals if hospital.is_active) or "none"
    got = f"one that was revoked on {named[-1].revoked}" if named else "an unknown one"
    raise EnrolmentError(f"hospital {name[:80]!r}: expected an enrolled one ({active}), got {got}.")
