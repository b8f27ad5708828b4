import base64
import json
from datetime import UTC, datetime
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    EllipticCurvePublicKey,
    derive_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from shared_model.errors import EnrolmentError
from shared_model.identity.enrolment_request import EnrolmentRequest, make_request, openssh_text, parse_request
from shared_model.identity.fingerprint import same_fingerprint

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
# Private scalars are given: a name of a test must be the same on every worker.
NODE, SIGNING = derive_private_key(7, SECP384R1()), Ed25519PrivateKey.generate()


@cache
def east() -> EnrolmentRequest:
    return make_request("east", node_key=NODE, signing_key=SIGNING, now=NOW)


def edited(**changes: object) -> bytes:
    return json.dumps(json.loads(east().to_json()) | changes).encode()


def signed_again(**changes: object) -> bytes:
    """What somebody with both private keys can make."""
    content = json.loads(east().to_json()) | changes
    unsigned = {key: value for key, value in content.items() if not key.endswith("_signature")}
    signed = b"hipfed enrolment request\n" + json.dumps(unsigned, sort_keys=True, separators=(",", ":")).encode()
    content["node_signature"] = base64.b64encode(NODE.sign(signed, ECDSA(SHA384()))).decode()
    content["signing_signature"] = base64.b64encode(SIGNING.sign(signed)).decode()
    return json.dumps(content).encode()


def compressed(key: EllipticCurvePublicKey) -> str:
    """An OpenSSH line with the point in its short form, which no OpenSSH writes."""
    kind, curve = b"ecdsa-sha2-nistp384", b"nistp384"
    point = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (kind, curve, point))
    return f"{kind.decode()} {base64.b64encode(blob).decode()}"


def test_request_is_read_as_it_was_made() -> None:
    request = parse_request(east().to_json(), source="request.json")

    assert request == east()
    assert (request.name, request.created_at) == ("east", NOW)
    assert request.node_public_key == NODE.public_key()
    assert request.signing_public_key == SIGNING.public_key()


def test_request_is_read_when_a_mailer_laid_it_out_anew() -> None:
    pretty = json.dumps(json.loads(east().to_json()), indent=4).replace("\n", "\r\n").encode()

    assert parse_request(pretty, source="request.json") == east()


def test_two_requests_of_one_hospital_differ_in_their_fingerprint() -> None:
    again = make_request("east", node_key=NODE, signing_key=SIGNING, now=NOW)

    assert again.nonce != east().nonce
    assert not same_fingerprint(again.fingerprint, east().fingerprint)


def test_fingerprint_is_the_same_however_it_was_written_down() -> None:
    spoken = east().fingerprint

    assert [len(group) for group in spoken.split(" ")] == [4] * 8
    assert same_fingerprint(spoken, spoken.upper().replace(" ", "-"))
    assert not same_fingerprint(spoken, spoken[:-1])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "west"),
        ("created", "2026-03-02T12:30:00Z"),
        ("nonce", "ab" * 32),
        ("node_key", openssh_text(derive_private_key(384, SECP384R1()).public_key())),
    ],
)
def test_request_is_refused_when_what_was_signed_is_changed(field: str, value: str) -> None:
    with pytest.raises(EnrolmentError, match="node_signature: expected the node key's signature of this request"):
        parse_request(edited(**{field: value}), source="request.json")


def test_request_is_refused_when_the_signing_key_did_not_sign_it() -> None:
    with pytest.raises(EnrolmentError, match="node_signature"):
        parse_request(edited(signing_key=openssh_text(Ed25519PrivateKey.generate().public_key())), source="r")
    other = base64.b64encode(Ed25519PrivateKey.generate().sign(east().signed_bytes)).decode()
    with pytest.raises(EnrolmentError, match="signing_signature: expected the signing key's signature of this request"):
        parse_request(edited(signing_signature=other), source="r")


def test_signature_of_the_bare_content_does_not_serve() -> None:
    bare = east().signed_bytes.removeprefix(b"hipfed enrolment request\n")
    signature = base64.b64encode(NODE.sign(bare, ECDSA(SHA384()))).decode()

    with pytest.raises(EnrolmentError, match="node_signature"):
        parse_request(edited(node_signature=signature), source="request.json")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("version", 2, "version: Input should be 1"),
        ("version", "1", "version: Input should be 1"),
        ("name", "../east", "name: expected 1 to 64 letters"),
        ("name", "east,west", "name: expected"),
        ("name", "", "name: expected"),
        ("name", "e" * 65, "name: String should have at most 64 characters"),
        ("name", "ea\u202est", "name: expected"),
        ("created", "2026-02-30T00:00:00Z", "created: "),
        ("created", "2026-03-01T12:30:00+01:00", "created: String should match pattern"),
        ("nonce", "ab", "nonce: String should match pattern"),
        ("node_key", "ssh-rsa AAAA", "node_key: expected one line as OpenSSH writes a key of the kind ecdsa"),
        ("node_key", openssh_text(derive_private_key(256, SECP256R1()).public_key()), "node_key: expected one line"),
        ("node_key", openssh_text(NODE.public_key()) + " root@east", "node_key: expected one line"),
        ("node_key", compressed(NODE.public_key()), "node_key: expected one line as OpenSSH writes a key"),
        ("signing_key", openssh_text(NODE.public_key()), "signing_key: expected one line"),
        ("node_signature", "!", "signature: expected base64"),
        ("comment", "hello", "comment: Extra inputs are not permitted"),
    ],
)
def test_request_is_refused_even_if_signed(field: str, value: object, said: str) -> None:
    content = edited(**{field: value}) if field.endswith("signature") else signed_again(**{field: value})

    with pytest.raises(EnrolmentError, match=rf"request\.json: expected an enrolment request of version 1.*: {said}"):
        parse_request(content, source="request.json")


def test_request_that_is_signed_again_is_taken() -> None:
    assert parse_request(signed_again(name="West.2"), source="request.json").name == "West.2"


def test_enormous_request_is_refused_unread() -> None:
    with pytest.raises(EnrolmentError, match="expected an enrolment request of at most 8192 bytes, got 9000"):
        parse_request(b"[" * 9000, source="request.json")


def test_request_of_a_name_that_none_may_have_is_not_made() -> None:
    with pytest.raises(EnrolmentError, match=r"name of the hospital: expected .*, got 'St\. Mary'\."):
        make_request("St. Mary", node_key=NODE, signing_key=SIGNING, now=NOW)


def _is_refused_or_the_same(content: bytes) -> bool:
    """Whether it is refused in the house's words, or says what the genuine one says; no other error is caught."""
    try:
        request = parse_request(content, source="request.json")
    except EnrolmentError as error:
        return str(error).startswith("request.json: expected an enrolment request")
    return request.signed_bytes == east().signed_bytes


@given(st.binary(max_size=9000))
def test_any_bytes_are_refused_plainly(content: bytes) -> None:
    assert _is_refused_or_the_same(content)


@given(
    st.lists(
        st.tuples(st.sampled_from(["flip", "insert", "cut", "double"]), st.integers(0, 900), st.binary(max_size=8)),
        min_size=1,
        max_size=4,
    )
)
def test_damaged_request_is_refused_plainly(damages: list[tuple[str, int, bytes]]) -> None:
    content = east().to_json()
    for kind, where, what in damages:
        if kind == "flip" and where < len(content):
            content = content[:where] + bytes([content[where] ^ (what[0] if what else 1)]) + content[where + 1 :]
        elif kind == "insert":
            content = content[:where] + what + content[where:]
        elif kind == "cut":
            content = content[:where] + content[where + len(what) + 1 :]
        else:
            content = content[:where] + content[where // 2 :]
    assert _is_refused_or_the_same(content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*EnrolmentRequest.model_fields, "other"]), JSON, min_size=1, max_size=3))
def test_request_with_other_values_is_refused_plainly(values: dict[str, object]) -> None:
    assert _is_refused_or_the_same(edited(**values))


@given(st.sampled_from(["name", "created", "nonce", "node_key", "signing_key"]), JSON)
def test_signed_request_with_other_values_is_refused_plainly_or_taken(field: str, value: object) -> None:
    try:
        content = signed_again(**{field: value})
        request = parse_request(content, source="request.json")
    except EnrolmentError:
        return
    assert json.loads(request.to_json())[field] == value
