"""Requests of hospitals that exist only in tests."""

from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared_model.identity.enrolment_request import EnrolmentRequest, make_request

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def ask(
    name: str,
    *,
    node_key: EllipticCurvePrivateKey | None = None,
    signing_key: Ed25519PrivateKey | None = None,
    now: datetime = NOW,
) -> EnrolmentRequest:
    """A request with new keys, if none are given."""
    return make_request(
        name,
        node_key=node_key or generate_private_key(SECP384R1()),
        signing_key=signing_key or Ed25519PrivateKey.generate(),
        now=now,
    )
