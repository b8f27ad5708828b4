"""The one place where hospitals' arrays are added. Nothing on the coordinator's side reads them before."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from server.protocol.quorum import Attendance
from shared_model.protocol.messages import SumRound
from shared_model.protocol.quantities import Arrays, Quantities, check_arrays


@runtime_checkable
class Reducer(Protocol):
    """Running total of one question's answers, the only thing about them that the coordinator reads.

    Attributes:
        sum_round: names a secure sum in the question; None where the coordinator adds.
        fewest: hospitals that must have answered before the total may be asked for.
        costs: of further questions that the sum needed.
    """

    sum_round: SumRound | None
    fewest: int
    costs: Sequence[Attendance]

    def add(self, arrays: Arrays, *, where: str) -> None:
        """Add one hospital's arrays; all of them or, if any is wrong, none."""

    def total(self) -> Mapping[str, np.ndarray]:
        """Sums over the hospitals added so far, float64."""


class PlainSum:
    """Running total in fixed point: independent of the order of arrival, and as large as one hospital's arrays."""

    sum_round: SumRound | None = None
    fewest: int = 0
    costs: Sequence[Attendance] = ()

    def __init__(self, quantities: Quantities, *, agrees: Callable[[Arrays], object] | None = None) -> None:
        """A total of zero.

        Args:
            quantities: what may be added.
            agrees: raises a ProtocolError where arrays that are well formed contradict each other.
        """
        self._quantities = quantities
        self._agrees = agrees
        self._total = {name: np.zeros(quantity.shape, dtype=np.int64) for name, quantity in quantities.items()}

    def add(self, arrays: Arrays, *, where: str) -> None:
        """Add one hospital's arrays; all of them or, if any is wrong, none.

        Args:
            arrays: as listed in the quantities.
            where: the hospital's name, for the error.

        Raises:
            ProtocolError: names, shapes or values are not the agreed ones.
        """
        check_arrays(arrays, self._quantities, where=where)
        if self._agrees is not None:
            self._agrees(arrays)
        for name, quantity in self._quantities.items():
            self._total[name] += quantity.encode(arrays[name])

    def total(self) -> Mapping[str, np.ndarray]:
        """Sums over the hospitals added so far, float64."""
        return {name: quantity.decode(self._total[name]) for name, quantity in self._quantities.items()}
