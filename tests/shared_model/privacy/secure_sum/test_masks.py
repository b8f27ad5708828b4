"""The primitives give the published test vectors of their RFCs, in the way in which they are used."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from shared_model.privacy.secure_sum.masks import agree_key, derive_key, expand_mask

# RFC 7748, section 6.1
ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
BOBS_PUBLIC = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
SHARED = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
# RFC 5869, appendix A.3: no salt, no info; its first 32 bytes
DERIVED = bytes.fromhex("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d")
# RFC 8439, appendix A.1, vector 1: key, nonce and counter are zero
STREAM = bytes.fromhex(
    "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
    "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
)


def test_keys_are_agreed_by_x25519_and_derived_by_hkdf() -> None:
    assert derive_key(b"\x0b" * 22, purpose=b"") == DERIVED
    agreed = agree_key(X25519PrivateKey.from_private_bytes(ALICE), BOBS_PUBLIC, purpose=b"one")
    assert agreed == derive_key(SHARED, purpose=b"one")
    assert agreed != derive_key(SHARED, purpose=b"two")


def test_mask_is_the_chacha20_stream() -> None:
    assert expand_mask(bytes(32), 8).astype("<u8").tobytes() == STREAM
    assert expand_mask(bytes(32), 3).astype("<u8").tobytes() == STREAM[:24]


def test_key_of_small_order_is_refused() -> None:
    with pytest.raises(ValueError, match="shared key"):
        agree_key(X25519PrivateKey.generate(), bytes(32), purpose=b"")


def test_masks_are_uniform() -> None:
    counts = np.bincount(expand_mask(b"\x07" * 32, 2**17).view(np.uint8), minlength=256)
    expected = 2**20 / 256
    assert ((counts - expected) ** 2 / expected).sum() < 350  # chi-square of 255 degrees of freedom: p = 7e-5
