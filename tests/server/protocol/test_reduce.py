from itertools import permutations

import numpy as np
import pytest

from server.protocol.reduce import PlainSum
from shared_model.errors import ProtocolError
from shared_model.protocol.quantities import Quantity

QUANTITIES = {"a": Quantity((2,), 1000.0), "b": Quantity((), 10.0, 0)}


def _total(*parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    reducer = PlainSum(QUANTITIES)
    for part in parts:
        reducer.add(part, where="east")
    return dict(reducer.total())


def test_plain_sum_adds_each_array() -> None:
    total = _total(
        {"a": np.array([1.0, -2.5]), "b": np.array(3.0)},
        {"a": np.array([0.25, 4.0]), "b": np.array(0.5)},
    )

    np.testing.assert_array_equal(total["a"], [1.25, 1.5])
    assert total["b"] == 3.5


def test_plain_sum_is_the_same_to_the_last_bit_in_every_order() -> None:
    rng = np.random.default_rng(0)
    # in floating point this sum depends on the order: 1e3 swallows digits of 1e-12
    parts = [{"a": rng.normal(0, scale, 2), "b": np.array(rng.random())} for scale in (1e2, 1.0, 1e-6, 1e-12)]
    naive = {sum((part["a"][0] for part in order), 0.0) for order in permutations(parts)}

    totals = [_total(*order) for order in permutations(parts)]

    assert len(naive) > 1
    assert len({total["a"].tobytes() + total["b"].tobytes() for total in totals}) == 1
    assert totals[0]["a"][0] == pytest.approx(sum(part["a"][0] for part in parts), rel=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"a": np.array([1.0, 1.0])},
        {"a": np.array([1.0, 1.0]), "b": np.array(1.0), "c": np.array(1.0)},
        {"a": np.array([1.0, 1.0]), "b": np.array([1.0])},
        {"a": np.array([1.0, 1.0]), "b": np.array(np.nan)},
        {"a": np.array([1.0, 1.0]), "b": np.array(np.inf)},
        {"a": np.array([1.0, 1.0]), "b": np.array(-0.1)},
        {"a": np.array([1.0, 1.0]), "b": np.array(10.1)},
        {"a": np.array([1.0, 1.0]), "b": np.array("1")},
        {"a": np.array([1.0, 1.0]), "b": np.array(1j)},
    ],
    ids=["missing", "unknown", "shape", "nan", "infinity", "negative", "too-large", "text", "complex"],
)
def test_plain_sum_adds_nothing_of_a_site_when_one_array_is_wrong(wrong: dict[str, np.ndarray]) -> None:
    reducer = PlainSum(QUANTITIES)
    reducer.add({"a": np.array([7.0, 8.0]), "b": np.array(1.0)}, where="east")

    with pytest.raises(ProtocolError, match="north"):
        reducer.add(wrong, where="north")

    np.testing.assert_array_equal(reducer.total()["a"], [7.0, 8.0])
    assert reducer.total()["b"] == 1.0


def test_plain_sum_of_a_thousand_sites_at_the_limit_does_not_overflow() -> None:
    reducer = PlainSum(QUANTITIES)
    for _ in range(1024):
        reducer.add({"a": np.array([1000.0, -1000.0]), "b": np.array(10.0)}, where="east")

    np.testing.assert_array_equal(reducer.total()["a"], [1_024_000.0, -1_024_000.0])
    assert reducer.total()["b"] == 10_240.0
