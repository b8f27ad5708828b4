from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from server.enrolment.authority import Authority
from server.enrolment.enrol import enrol, revoke
from server.enrolment.registry import Registry
from shared_model.errors import EnrolmentError
from shared_model.identity.enrolment_request import openssh_text
from tests.server.coordinator_home import is_active
from tests.server.enrolment.requests_of_hospitals import NOW, ask

LATER = NOW + timedelta(hours=1)


def test_enrolled_hospital_is_known_by_its_keys(registry: Registry, authority: Authority) -> None:
    node_key, signing_key = generate_private_key(SECP384R1()), Ed25519PrivateKey.generate()
    request = ask("east", node_key=node_key, signing_key=signing_key)

    hospital = enrol(registry, request, authority, now=LATER)

    pem = node_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert registry.active_hospitals() == (hospital,)
    assert (hospital.name, hospital.enrolled) == ("east", "2026-03-01T13:30:00Z")
    assert hospital.signing_key == openssh_text(signing_key.public_key())
    assert hospital.node_key_pem == pem
    assert registry.hospital_of_key(pem) == hospital
    assert is_active(registry, pem)


@pytest.mark.parametrize("key", [b"", b"\xff", ask("west").node_key.encode()], ids=["empty", "no text", "unknown"])
def test_unknown_key_is_nobodys(registry: Registry, authority: Authority, key: bytes) -> None:
    enrol(registry, ask("east"), authority, now=LATER)

    assert registry.hospital_of_key(key) is None
    assert not is_active(registry, key)


def test_fingerprint_that_was_read_out_is_compared(registry: Registry, authority: Authority) -> None:
    request = ask("east")

    with pytest.raises(EnrolmentError, match="expected the fingerprint that was read out, 1234, got"):
        enrol(registry, request, authority, now=LATER, fingerprint="1234")
    enrol(registry, request, authority, now=LATER, fingerprint=request.fingerprint.upper().replace(" ", ""))

    assert [hospital.name for hospital in registry.active_hospitals()] == ["east"]


def test_replayed_request_is_refused(registry: Registry, authority: Authority) -> None:
    request = ask("east")
    enrol(registry, request, authority, now=LATER)

    with pytest.raises(
        EnrolmentError, match="request of east: expected one that was not used before, got one that was"
    ):
        enrol(registry, request, authority, now=LATER)


def test_replayed_request_is_refused_after_the_hospital_was_revoked(registry: Registry, authority: Authority) -> None:
    request = ask("east")
    enrol(registry, request, authority, now=LATER)
    revoke(registry, "east", "left", authority, now=LATER)

    with pytest.raises(EnrolmentError, match="expected one that was not used before"):
        enrol(registry, request, authority, now=LATER)


@pytest.mark.parametrize("name", ["east", "EAST"])
def test_name_of_an_enrolled_hospital_is_refused(registry: Registry, authority: Authority, name: str) -> None:
    enrol(registry, ask("east"), authority, now=LATER)

    with pytest.raises(EnrolmentError, match=f"request of {name}: expected a name of its own, got that of an enrolled"):
        enrol(registry, ask(name), authority, now=LATER)


@pytest.mark.parametrize("shared", ["node", "signing"])
@pytest.mark.parametrize("revoked", [False, True])
def test_used_key_is_refused(registry: Registry, authority: Authority, shared: str, *, revoked: bool) -> None:
    node, signing = generate_private_key(SECP384R1()), Ed25519PrivateKey.generate()
    enrol(registry, ask("east", node_key=node, signing_key=signing), authority, now=LATER)
    if revoked:
        revoke(registry, "east", "left", authority, now=LATER)
    second = ask("west", node_key=node) if shared == "node" else ask("west", signing_key=signing)

    said = "expected new keys, got a key of east" + (", which was revoked" if revoked else "")
    with pytest.raises(EnrolmentError, match=said):
        enrol(registry, second, authority, now=LATER)


@pytest.mark.parametrize(
    ("age", "said"),
    [(timedelta(days=30, seconds=1), "expected one of the last 30 days"), (-timedelta(hours=1, seconds=1), "the past")],
    ids=["old", "future"],
)
def test_request_of_another_time_is_refused(
    registry: Registry, authority: Authority, age: timedelta, said: str
) -> None:
    with pytest.raises(EnrolmentError, match=said):
        enrol(registry, ask("east"), authority, now=NOW + age)

    assert registry.hospitals == ()


@pytest.mark.parametrize("age", [timedelta(days=30), -timedelta(hours=1)])
def test_request_within_the_limits_is_taken(registry: Registry, authority: Authority, age: timedelta) -> None:
    assert enrol(registry, ask("east"), authority, now=NOW + age).is_active


def test_revocation_touches_one_hospital_only(registry: Registry, authority: Authority) -> None:
    east, west = (enrol(registry, ask(name), authority, now=LATER) for name in ("east", "west"))

    revoked = revoke(registry, "EAST", " left the study ", authority, now=LATER)

    assert (revoked.name, revoked.reason, revoked.revoked) == ("east", "left the study", "2026-03-01T13:30:00Z")
    assert registry.active_hospitals() == (west,)
    assert registry.hospitals == (revoked, west)
    assert not is_active(registry, east.node_key_pem)
    assert registry.hospital_of_key(east.node_key_pem) == revoked
    assert is_active(registry, west.node_key_pem)


def test_revoked_hospital_enrols_again_with_new_keys(registry: Registry, authority: Authority) -> None:
    old = enrol(registry, ask("east"), authority, now=LATER)
    revoke(registry, "east", "lost its key", authority, now=LATER)

    new = enrol(registry, ask("east"), authority, now=LATER)

    assert registry.active_hospitals() == (new,)
    assert not is_active(registry, old.node_key_pem)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("north", r"hospital 'north': expected an enrolled one \(west\), got an unknown one"),
        (
            "east",
            r"hospital 'east': expected an enrolled one \(west\), got one that was revoked on 2026-03-01T13:30:00Z",
        ),
    ],
)
def test_only_an_enrolled_hospital_is_revoked(registry: Registry, authority: Authority, name: str, said: str) -> None:
    for one in ("east", "west"):
        enrol(registry, ask(one), authority, now=LATER)
    revoke(registry, "east", "left", authority, now=LATER)

    with pytest.raises(EnrolmentError, match=said):
        revoke(registry, name, "left", authority, now=LATER)


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "x" * 501])
def test_revocation_needs_a_reason(registry: Registry, authority: Authority, reason: str) -> None:
    enrol(registry, ask("east"), authority, now=LATER)

    with pytest.raises(EnrolmentError, match="--reason: expected one line of 1 to 500 characters"):
        revoke(registry, "east", reason, authority, now=LATER)

    assert len(registry.active_hospitals()) == 1
