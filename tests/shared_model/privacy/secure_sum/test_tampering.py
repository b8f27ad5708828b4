"""Each step out of the protocol is refused with its reason, and opens nothing."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared_model.errors import SecureSumError
from shared_model.privacy.secure_sum.opened_sum import MaskedSum
from shared_model.privacy.secure_sum.participant import KeyOffer, OpenedShares, Participant
from shared_model.privacy.secure_sum.session import Session
from tests.shared_model.privacy.secure_sum.hospitals import NAMES, Hospitals, draw_values


@pytest.fixture
def hospitals() -> Hospitals:
    hospitals = Hospitals(threshold=3)
    hospitals.begin()
    return hospitals


def fresh() -> Hospitals:
    return Hospitals(threshold=3)


@pytest.mark.parametrize(
    ("threshold", "n", "colluding", "fits"),
    [(4, 5, 2, True), (3, 5, 0, True), (3, 5, 1, False), (2, 3, 0, True), (2, 4, 0, False), (6, 5, 0, False)],
)
def test_threshold_keeps_colluding_hospitals_from_both_halves(
    threshold: int, n: int, colluding: int, *, fits: bool
) -> None:
    if fits:
        Hospitals(n, threshold=threshold, colluding=colluding)
    else:
        with pytest.raises(SecureSumError, match=r"expected a threshold t of at most \d hospitals with 2t >"):
            Hospitals(n, threshold=threshold, colluding=colluding)


def test_two_hospitals_are_no_session() -> None:
    with pytest.raises(SecureSumError, match="expected at least 3 hospitals, got 2"):
        Hospitals(2, threshold=2)


def test_one_hospital_under_two_names_is_refused() -> None:
    members = dict(fresh().session.members)
    with pytest.raises(SecureSumError, match="got one twice"):
        Session("run", members | {"east": members["west"]}, 3, 1)


def test_another_signing_key_is_refused() -> None:
    with pytest.raises(SecureSumError, match="own signing key"):
        Participant(fresh().session, "east", Ed25519PrivateKey.generate())


OfferFault = Callable[[dict[str, KeyOffer]], object]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda offers: offers.update(east=replace(offers["east"], channel=b"\x01" * 32)), "its own signature"),
        (lambda offers: offers.update(east=replace(offers["east"], signature=bytes(64))), "its own signature"),
        (lambda offers: offers.update(east=offers["north"]), "its own signature"),
        (lambda offers: offers.update(nobody=offers["north"]), "a hospital of this study's list"),
        (lambda offers: offers.update(west=fresh().all["west"].offer_keys()), "own offer among all"),
        (lambda offers: [offers.pop(name) for name in NAMES[:3]], "expected at least 3, got 2"),
    ],
    ids=["swapped key", "no signature", "another's offer", "stranger", "own offer exchanged", "too few"],
)
def test_wrong_offers_are_refused(spoil: OfferFault, reason: str) -> None:
    hospitals = fresh()
    offers = {name: one.offer_keys() for name, one in hospitals.all.items()}
    spoil(offers)

    with pytest.raises(SecureSumError, match=reason):
        hospitals.all["west"].share_keys(offers)


def test_offer_of_another_session_is_refused() -> None:
    hospitals = fresh()
    other = replace(hospitals.session, purpose="study/run/joint")
    offers = {name: one.offer_keys() for name, one in hospitals.all.items()}
    offers["east"] = Participant(other, "east", hospitals.keys["east"]).offer_keys()

    with pytest.raises(SecureSumError, match="east: expected its own signature"):
        hospitals.all["west"].share_keys(offers)


def test_offers_are_taken_once(hospitals: Hospitals) -> None:
    with pytest.raises(SecureSumError, match="got them again"):
        hospitals.all["east"].share_keys(hospitals.offers)


@pytest.mark.parametrize("fault", ["flipped", "another receiver's", "missing"])
def test_wrong_texts_are_refused(fault: str) -> None:
    hospitals = fresh()
    offers = {name: one.offer_keys() for name, one in hospitals.all.items()}
    texts = {name: one.share_keys(offers) for name, one in hospitals.all.items()}
    mine = {sender: texts[sender]["east"] for sender in NAMES if sender != "east"}
    if fault == "flipped":
        mine["west"] = bytes([mine["west"][0] ^ 1]) + mine["west"][1:]
    elif fault == "missing":
        del mine["west"]
    else:
        mine["west"] = texts["west"]["north"]

    with pytest.raises(SecureSumError, match="west"):
        hospitals.all["east"].take_shares(mine)
    with pytest.raises(SecureSumError, match="every hospital's shares before the first sum"):
        hospitals.all["east"].mask(0, np.zeros(1, dtype=np.uint64))


@pytest.mark.parametrize("round_", [0, 3, -1])
def test_round_is_masked_once_and_is_one_of_the_session(hospitals: Hospitals, round_: int) -> None:
    east = hospitals.all["east"]
    east.mask(0, np.zeros(1, dtype=np.uint64))

    with pytest.raises(SecureSumError, match="expected a new one of 3"):
        east.mask(round_, np.ones(1, dtype=np.uint64))


def test_mask_is_opened_for_one_set_of_hospitals_only(hospitals: Hospitals) -> None:
    """Else a hospital's own mask and its masks with the others could both be had."""
    total = hospitals.mask(0, draw_values(NAMES, 5))
    east = hospitals.all["east"]
    east.open_masks(0, total.answered)

    for ask in (east.open_masks, east.confirm):
        with pytest.raises(SecureSumError, match="that were named first"):
            ask(0, set(NAMES) - {"west"})


def test_confirmed_set_is_the_one_that_is_opened(hospitals: Hospitals) -> None:
    hospitals.mask(0, draw_values(NAMES, 5))
    hospitals.all["east"].confirm(0, set(NAMES) - {"west"})

    with pytest.raises(SecureSumError, match="that were named first"):
        hospitals.all["east"].open_masks(0, NAMES)


@pytest.mark.parametrize("fault", ["missing", "of another set", "of another round"])
def test_no_key_of_a_lost_hospital_is_given_before_all_others_confirm(hospitals: Hospitals, fault: str) -> None:
    answered = sorted(set(NAMES) - {"west"})
    for round_ in (0, 1):
        hospitals.mask(round_, draw_values(answered, 5))
    confirmed = {name: hospitals.all[name].confirm(0, answered) for name in answered}
    reason = "north: expected its own signature of those who answered"
    if fault == "missing":
        del confirmed["north"], confirmed["south"]
        reason = "expected confirmations of at least 3 hospitals, got 2"
    else:
        others = answered[:-1] if fault == "of another set" else answered
        confirmed["north"] = hospitals.all["north"].confirm(1, {*others, "north"})

    with pytest.raises(SecureSumError, match=reason):
        hospitals.all["east"].open_masks(0, answered, confirmed)


@pytest.mark.parametrize(
    ("answered", "reason"),
    [
        ((*NAMES, "east"), "each hospital once"),
        ((*NAMES, "stranger"), "hospitals of the session"),
        (("east", "north"), "at least 3 hospitals"),
        (("north", "south", "west"), "that this hospital has answered"),
    ],
)
def test_wrong_sets_are_refused(hospitals: Hospitals, answered: tuple[str, ...], reason: str) -> None:
    hospitals.mask(0, draw_values(NAMES, 5))

    with pytest.raises(SecureSumError, match=reason):
        hospitals.all["east"].open_masks(0, answered)


def test_round_that_was_not_answered_is_not_opened(hospitals: Hospitals) -> None:
    with pytest.raises(SecureSumError, match="round 2: expected one that this hospital has answered"):
        hospitals.all["east"].open_masks(2, NAMES)


def test_hospital_is_added_once_and_with_integers_of_the_range(hospitals: Hospitals) -> None:
    total = MaskedSum(hospitals.session, 0, hospitals.offers, 4)
    total.add("east", np.zeros(4, dtype=np.uint64))

    for name, values in (
        ("east", np.zeros(4, dtype=np.uint64)),
        ("stranger", np.zeros(4, dtype=np.uint64)),
        ("west", np.zeros(5, dtype=np.uint64)),
    ):
        with pytest.raises(SecureSumError):
            total.add(name, values)


@pytest.mark.parametrize("which", ["own_masks", "lost_keys"])
def test_share_of_another_round_is_noticed(hospitals: Hospitals, which: str) -> None:
    answered = sorted(set(NAMES) - {"west"})
    totals = [hospitals.mask(round_, draw_values(answered, 5)) for round_ in (0, 1)]
    shares, others = (hospitals.shares(round_, answered) for round_ in (0, 1))
    of_other = {name: getattr(given, which) for name, given in others.items()}
    spoilt: dict[str, OpenedShares] = {
        name: replace(given, **{which: of_other[name]}) for name, given in shares.items()
    }

    with pytest.raises(SecureSumError, match="expected shares of its"):
        totals[0].open(spoilt)
    totals[0].open(shares)
