"""Shares give the secret from the threshold on, in any choice, and not below it."""

import os
from itertools import combinations

import pytest

from shared_model.errors import SecureSumError
from shared_model.privacy.secure_sum.secret_sharing import combine_shares, split_secret


@pytest.mark.parametrize(("threshold", "n"), [(2, 3), (4, 5), (5, 5)])
def test_any_threshold_of_shares_gives_the_secret(threshold: int, n: int) -> None:
    secret = os.urandom(32)
    shares = dict(enumerate(split_secret(secret, threshold=threshold, n=n), start=1))

    for chosen in combinations(shares, threshold):
        assert combine_shares({index: shares[index] for index in chosen}, threshold=threshold) == secret
    assert combine_shares(shares, threshold=threshold) == secret


def test_fewer_shares_give_another_secret_or_none() -> None:
    secret = os.urandom(32)
    shares = dict(enumerate(split_secret(secret, threshold=3, n=4), start=1))
    two = {index: shares[index] for index in (1, 2)}

    with pytest.raises(SecureSumError, match="at least 3"):
        combine_shares(two, threshold=3)
    assert combine_shares(two, threshold=2) != secret
    assert combine_shares({**two, 4: shares[3]}, threshold=3) != secret


def test_one_share_takes_every_value_whatever_the_secret() -> None:
    of_zero = {split_secret(bytes(32), threshold=2, n=2)[0] for _ in range(50)}

    assert len(of_zero) == 50
    assert bytes(32) not in of_zero


@pytest.mark.parametrize(("size", "threshold", "n"), [(31, 2, 3), (32, 1, 3), (32, 4, 3)])
def test_wrong_use_is_refused(size: int, threshold: int, n: int) -> None:
    with pytest.raises(ValueError, match="expected 32 bytes"):
        split_secret(bytes(size), threshold=threshold, n=n)
