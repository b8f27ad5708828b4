"""Quantities: the allow-list of aggregates that the hospital's gate and the coordinator's reducer both check.

A quantity is an array that is summed over hospitals. Sums are kept in fixed point: integer addition is associative, so
the result does not depend on the order in which hospitals answer, and a secure sum can carry the same integers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int64, Real, UInt64

from shared_model.errors import ProtocolError

MAX_SITES = 1024
MAX_PATIENTS = 100_000  # of one hospital
_BITS = 62

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Quantity:
    """One array of a message: its shape and the largest absolute value that any entry may have at one hospital."""

    shape: tuple[int, ...]
    limit: float
    lowest: float = -np.inf

    @property
    def fraction_bits(self) -> int:
        """Binary digits behind the point, so that `MAX_SITES` values of `limit` fit into 62 bits."""
        return _BITS - int(np.ceil(np.log2(self.limit * MAX_SITES)))

    def encode(self, values: Real[np.ndarray, "..."]) -> Int64[np.ndarray, "..."]:
        """Fixed-point integers; the rounding error is at most `2 ** -(fraction_bits + 1)`."""
        return np.asarray(np.rint(np.ldexp(values.astype(np.float64), self.fraction_bits)), dtype=np.int64)

    def decode(self, integers: Int64[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Values of a sum of encoded arrays."""
        return np.asarray(np.ldexp(integers.astype(np.float64), -self.fraction_bits))


Quantities = Mapping[str, Quantity]


MASKED = "masked"
"""Name of the one array of an answer to a secure sum: all agreed arrays as integers, in the order of their names."""


def pack_integers(arrays: Arrays, quantities: Quantities) -> UInt64[np.ndarray, "n"]:
    """Agreed arrays as fixed-point integers modulo 2^64, one after the other in the order of their names."""
    parts = [quantities[name].encode(arrays[name]).ravel() for name in sorted(quantities)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts]).view(np.uint64)


def unpack_integers(integers: UInt64[np.ndarray, "n"], quantities: Quantities) -> dict[str, np.ndarray]:
    """The sums of packed arrays, float64."""
    sizes = {name: int(np.prod(quantities[name].shape)) for name in sorted(quantities)}
    parts = np.split(integers.view(np.int64), np.cumsum(list(sizes.values()))[:-1])
    return {
        name: quantities[name].decode(part.reshape(quantities[name].shape))
        for name, part in zip(sizes, parts, strict=True)
    }


def count_integers(quantities: Quantities) -> int:
    """How many integers `pack_integers` makes of arrays."""
    return sum(int(np.prod(quantity.shape)) for quantity in quantities.values())


def check_arrays(arrays: Arrays, quantities: Quantities, *, where: str) -> None:
    """Arrays are exactly the expected ones: names, shapes, finite, within limits.

    Raises:
        ProtocolError: names the first fault, never a value of the array.
    """
    missing, extra = sorted(set(quantities) - set(arrays)), sorted(set(arrays) - set(quantities))
    if missing or extra:
        raise ProtocolError(
            f"{where}: expected the {len(quantities)} agreed arrays, got {len(missing)} missing {missing[:3]} "
            f"and {len(extra)} unknown {extra[:3]}."
        )
    for name, quantity in quantities.items():
        array = arrays[name]
        if array.shape != quantity.shape:
            raise ProtocolError(f"{where}, {name}: expected shape {quantity.shape}, got {array.shape}.")
        if array.dtype.kind not in "fi":
            raise ProtocolError(f"{where}, {name}: expected real numbers, got dtype {array.dtype}.")
        if not np.isfinite(array).all():
            raise ProtocolError(f"{where}, {name}: expected finite values, got NaN or infinity.")
        # Not by np.abs: of the smallest integer there is no positive counterpart, so it stays negative.
        if array.size and (array.max() > quantity.limit or array.min() < max(quantity.lowest, -quantity.limit)):
            raise ProtocolError(f"{where}, {name}: expected values in the agreed range, got one outside.")
