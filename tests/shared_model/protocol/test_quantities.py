from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_model.errors import ProtocolError
from shared_model.protocol.quantities import MAX_SITES, Quantity, check_arrays

LIMIT = 1000.0
LIMITS = st.floats(1e-3, 1e14)
VALUES = st.floats(-LIMIT, LIMIT)


def add(quantity: Quantity, values: list[float]) -> float:
    total = np.zeros((), dtype=np.int64)
    for value in values:
        total += quantity.encode(np.array(value))
    return float(quantity.decode(total))


@given(values=st.lists(VALUES, min_size=1, max_size=30), data=st.data())
def test_sum_is_the_same_to_the_last_bit_in_any_order(values: list[float], data: st.DataObject) -> None:
    quantity = Quantity((), LIMIT)
    shuffled = data.draw(st.permutations(values))
    assert add(quantity, list(shuffled)).hex() == add(quantity, values).hex()


def test_plain_float_sum_would_depend_on_the_order() -> None:
    # Why fixed point at all: three numbers suffice.
    values = [0.1, 0.2, 0.3]
    assert (values[0] + values[1]) + values[2] != values[0] + (values[1] + values[2])
    assert add(Quantity((), LIMIT), values) == add(Quantity((), LIMIT), values[::-1])


@given(limit=LIMITS, share=st.floats(-1, 1))
def test_encoding_is_off_by_half_a_unit_of_the_last_digit_at_most(limit: float, share: float) -> None:
    quantity, value = Quantity((), limit), share * limit
    encoded = Fraction(int(quantity.encode(np.array(value))))
    error = abs(encoded / Fraction(2) ** quantity.fraction_bits - Fraction(value))
    assert error <= Fraction(2) ** -(quantity.fraction_bits + 1)


@given(limit=LIMITS)
def test_largest_values_of_all_sites_fit_into_63_bits(limit: float) -> None:
    quantity = Quantity((2,), limit)
    highest, lowest = (MAX_SITES * int(code) for code in quantity.encode(np.array([limit, -limit])))
    assert highest < 2**63
    assert lowest >= -(2**63)
    assert highest >= 2**60  # and no more than two digits are wasted


@given(counts=st.lists(st.integers(0, 100_000), min_size=1, max_size=20))
def test_counts_are_added_without_any_error(counts: list[int]) -> None:
    assert add(Quantity((), 100_000), [float(count) for count in counts]) == sum(counts)


def test_arrays_keep_their_shape() -> None:
    quantity = Quantity((2, 3), LIMIT)
    values = np.arange(6.0).reshape(2, 3) / 4
    assert quantity.decode(quantity.encode(values)).tolist() == values.tolist()


AGREED = {"n": Quantity((), 10, 0), "change": Quantity((2,), 1.5)}
GOOD = {"n": np.array(3.0), "change": np.array([-1.5, 1.5], dtype=np.float32)}


def test_arrays_pass_when_they_are_as_agreed() -> None:
    check_arrays(GOOD, AGREED, where="train")
    check_arrays({**GOOD, "n": np.array(10)}, AGREED, where="train")
    check_arrays({"none": np.zeros((0,))}, {"none": Quantity((0,), 1)}, where="train")


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        pytest.param({"n": np.array(3.0)}, r"1 missing \['change'\] and 0 unknown \[\]", id="missing"),
        pytest.param({**GOOD, "id": np.zeros(2)}, r"0 missing \[\] and 1 unknown \['id'\]", id="unknown"),
        pytest.param({**GOOD, "change": np.zeros(3)}, r"change: expected shape \(2,\), got \(3,\)", id="shape"),
        pytest.param({**GOOD, "n": np.array([3.0])}, r"n: expected shape \(\), got \(1,\)", id="scalar"),
        pytest.param({**GOOD, "n": np.array(np.nan)}, "n: expected finite values", id="nan"),
        pytest.param({**GOOD, "change": np.array([0, -np.inf])}, "change: expected finite values", id="infinity"),
        pytest.param({**GOOD, "n": np.array(10.5)}, "n: expected values in the agreed range", id="limit"),
        pytest.param({**GOOD, "n": np.array(-1)}, "n: expected values in the agreed range", id="negative count"),
        pytest.param({**GOOD, "change": np.array([0, -1.6])}, "change: expected values in the", id="negative limit"),
        pytest.param({**GOOD, "n": np.array("3")}, "n: expected real numbers, got dtype <U1", id="text"),
        pytest.param({**GOOD, "n": np.array(3j)}, "n: expected real numbers, got dtype complex128", id="complex"),
        pytest.param({**GOOD, "n": np.ones((), dtype=bool)}, "n: expected real numbers, got dtype bool", id="flag"),
        pytest.param({**GOOD, "n": np.array(None)}, "n: expected real numbers, got dtype object", id="object"),
    ],
)
def test_arrays_are_refused_when_they_are_not_as_agreed(arrays: dict[str, np.ndarray], fault: str) -> None:
    with pytest.raises(ProtocolError, match=f"^train.*{fault}"):
        check_arrays(arrays, AGREED, where="train")


def test_refusal_of_arrays_holds_no_value_of_them() -> None:
    with pytest.raises(ProtocolError) as raised:
        check_arrays({**GOOD, "n": np.array(777.25)}, AGREED, where="train")
    assert "777" not in str(raised.value)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_smallest_integer_is_refused_though_its_absolute_value_overflows(dtype: type[np.signedinteger]) -> None:
    with pytest.raises(ProtocolError, match="expected values in the agreed range"):
        check_arrays({"w": np.array(np.iinfo(dtype).min, dtype=dtype)}, {"w": Quantity((), 100.0)}, where="train")


def test_scalars_stay_arrays() -> None:
    quantity = Quantity((), LIMIT)
    assert isinstance(quantity.encode(np.array(1.5)), np.ndarray)
    assert isinstance(quantity.decode(quantity.encode(np.array(1.5))), np.ndarray)
