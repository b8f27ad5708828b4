"""The request by which a hospital asks to take part: its name and its two public keys, signed by both.

The signatures prove that whoever made the request holds both private keys; that it is this hospital, its fingerprint
proves, which the two sides compare by telephone. A request names its moment and carries a number used once, so that the
coordinator takes it once and not for ever.

Why a request is checked where it is made into an object: code that holds an `EnrolmentRequest` need not ask again.
"""

import base64
import binascii
import re
import secrets
from datetime import UTC, datetime
from typing import Literal, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from shared_model.errors import EnrolmentError
from shared_model.identity.fingerprint import spoken_fingerprint
from shared_model.protocol.canonical_json import canonical_json

VERSION = 1
MAX_BYTES = 8 * 1024
NAME_RULE = "1 to 64 letters, digits, hyphens, underscores or dots, the first a letter or digit"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_SIGNED_AS = b"hipfed enrolment request\n"  # neither key's signature serves for anything else
_SIGNATURES = {"node_signature", "signing_signature"}


class EnrolmentRequest(BaseModel):
    """A request whose keys are of the right kind and whose signatures are right.

    Attributes:
        version: of this format.
        name: how the hospital is called in every study.
        node_key: public EC P-384 key in OpenSSH's format; Flower knows the hospital's SuperNode by it.
        signing_key: public Ed25519 key in OpenSSH's format; the request is signed with its private half.
        created: UTC, to the second.
        nonce: 32 random bytes in hexadecimal.
        node_signature: base64 of the node key's signature (ECDSA, SHA-384) of `signed_bytes`.
        signing_signature: base64 of the signing key's signature of `signed_bytes`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1]
    name: str = Field(max_length=64)
    node_key: str = Field(max_length=512)
    signing_key: str = Field(max_length=256)
    created: str = Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")
    nonce: str = Field(pattern=r"^[0-9a-f]{64}$")
    node_signature: str = Field(max_length=256)
    signing_signature: str = Field(max_length=128)

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        return checked_name(name)

    @field_validator("created")
    @classmethod
    def _check_created(cls, created: str) -> str:
        datetime.strptime(created, _TIME)  # noqa: DTZ007 - only whether there is such a moment
        return created

    @model_validator(mode="after")
    def _check_signatures(self) -> Self:
        try:
            self.node_public_key.verify(_decode(self.node_signature), self.signed_bytes, ECDSA(SHA384()))
        except InvalidSignature as error:
            raise ValueError("node_signature: expected the node key's signature of this request") from error
        try:
            self.signing_public_key.verify(_decode(self.signing_signature), self.signed_bytes)
        except InvalidSignature as error:
            raise ValueError("signing_signature: expected the signing key's signature of this request") from error
        return self

    @property
    def node_public_key(self) -> EllipticCurvePublicKey:
        """The node key.

        Raises:
            ValueError: it is not an EC P-384 key, or not written as OpenSSH writes it.
        """
        key = _load(self.node_key, "node_key", kind="ecdsa-sha2-nistp384")
        if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
            raise ValueError("node_key: expected an EC P-384 key")  # noqa: TRY004 - what pydantic catches
        return key

    @property
    def signing_public_key(self) -> Ed25519PublicKey:
        """The signing key.

        Raises:
            ValueError: it is not an Ed25519 key, or not written as OpenSSH writes it.
        """
        key = _load(self.signing_key, "signing_key", kind="ssh-ed25519")
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("signing_key: expected an Ed25519 key")  # noqa: TRY004 - what pydantic catches
        return key

    @property
    def created_at(self) -> datetime:
        """When it was made, in UTC."""
        return datetime.strptime(self.created, _TIME).replace(tzinfo=UTC)

    @property
    def signed_bytes(self) -> bytes:
        """What both keys sign: all but the signatures, in canonical JSON, under a heading of its own."""
        return _SIGNED_AS + canonical_json(self.model_dump(exclude=_SIGNATURES))

    @property
    def fingerprint(self) -> str:
        """Eight groups of four digits that stand for name, keys, moment and nonce; to be read out."""
        return spoken_fingerprint(self.signed_bytes)

    def to_json(self) -> bytes:
        """The content of request.json."""
        return canonical_json(self.model_dump()) + b"\n"


def make_request(
    name: str, *, node_key: EllipticCurvePrivateKey, signing_key: Ed25519PrivateKey, now: datetime
) -> EnrolmentRequest:
    """A new request, signed by both keys, with a nonce of its own.

    Args:
        name: the hospital's name.
        node_key: EC P-384.
        signing_key: Ed25519.
        now: this moment, with its time zone.

    Raises:
        EnrolmentError: the name is not one that a hospital may have.
    """
    try:
        content = {
            "version": VERSION,
            "name": checked_name(name),
            "node_key": openssh_text(node_key.public_key()),
            "signing_key": openssh_text(signing_key.public_key()),
            "created": now.astimezone(UTC).strftime(_TIME),
            "nonce": secrets.token_hex(32),
        }
    except ValueError as error:
        raise EnrolmentError(f"name of the hospital: {error}, got {name[:80]!r}.") from error
    signed = _SIGNED_AS + canonical_json(content)
    return EnrolmentRequest.model_validate(
        content
        | {
            "node_signature": base64.b64encode(node_key.sign(signed, ECDSA(SHA384()))).decode(),
            "signing_signature": base64.b64encode(signing_key.sign(signed)).decode(),
        }
    )


def parse_request(content: bytes, *, source: str) -> EnrolmentRequest:
    """The request that a file holds, its signatures checked.

    Args:
        content: the file's bytes, from anybody.
        source: the file's name, for the error.

    Raises:
        EnrolmentError: it is not a request of this version, too long, or not signed by both keys.
    """
    if len(content) > MAX_BYTES:
        raise EnrolmentError(
            f"{source}: expected an enrolment request of at most {MAX_BYTES} bytes, got {len(content)}. "
            "Ask the hospital for the request.json that `hipfed-client keygen` made."
        )
    try:
        return EnrolmentRequest.model_validate_json(content)
    except ValidationError as error:
        faults = "; ".join(
            ": ".join((*(str(part) for part in fault["loc"]), fault["msg"].removeprefix("Value error, ")))
            for fault in error.errors(include_url=False, include_input=False, include_context=False)[:5]
        )
        raise EnrolmentError(
            f"{source}: expected an enrolment request of version {VERSION}, got one that is not right: {faults}. "
            "Ask the hospital for the request.json that `hipfed-client keygen` made, and send it as a file, unchanged."
        ) from error


def checked_name(name: str) -> str:
    """The name, where a hospital may be called so.

    Raises:
        ValueError: it may not.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected {NAME_RULE}")
    return name


def openssh_text(key: EllipticCurvePublicKey | Ed25519PublicKey) -> str:
    """A public key as one line of OpenSSH, without a comment."""
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _load(text: str, field: str, *, kind: str) -> object:
    fault = f"{field}: expected one line as OpenSSH writes a key of the kind {kind}, without a comment"
    if not text.startswith(f"{kind} "):
        raise ValueError(fault)
    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, NotImplementedError, UnsupportedAlgorithm) as error:  # the second: a compressed point
        raise ValueError(fault) from error
    if not isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey) or openssh_text(key) != text:
        raise ValueError(fault)
    return key


def _decode(signature: str) -> bytes:
    try:
        return base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("signature: expected base64") from error
