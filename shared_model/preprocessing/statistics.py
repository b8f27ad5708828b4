"""Sums of the statistics step: what hospitals count of their training patients, question by question.

The first question counts everything. Later ones look closer at single columns (`quartiles`, `centred_sums`), at places
that follow from the totals of the earlier ones: the coordinator sends these totals, and a hospital derives the places
from them itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int64

from shared_model.errors import ProtocolError
from shared_model.modalities.registry import open_modalities
from shared_model.modalities.static import NUMBERS, StaticModality, number_ranges, within
from shared_model.patient_arrays import PatientArrays
from shared_model.preprocessing.centred_sums import PARTS, CentredSums, centred_quantities
from shared_model.preprocessing.quartiles import N_BINS, QuartileSearch
from shared_model.protocol.quantities import MAX_PATIENTS, MAX_SITES, Arrays, Quantities, Quantity, check_arrays
from shared_model.schema import STATIC, Schema

HISTOGRAM = f"{NUMBERS}/histogram"
MAX_QUESTIONS = 12

Sums = dict[str, np.ndarray]


@dataclass(frozen=True)
class StatisticsFrame:
    """Places at which a question looks, and what the earlier ones told.

    Attributes:
        n_totals: questions answered so far.
        quartiles: of the static numbers.
        moments: of the static numbers ("numbers"), of each series' channels, and of what other kinds have.
    """

    n_totals: int
    quartiles: QuartileSearch
    moments: Mapping[str, CentredSums]

    @classmethod
    def start(cls, schema: Schema) -> StatisticsFrame:
        """Before the first question: everything is as wide as the schema says."""
        moments = {key: start for each in open_modalities(schema).values() for key, start in each.moments().items()}
        quartiles = QuartileSearch.start(number_ranges(schema), wanted=StaticModality(STATIC, schema).numeric)
        return cls(0, quartiles, moments)

    @property
    def is_done(self) -> bool:
        """True if no question is left."""
        wanted = [self.quartiles.wanted, *(each.wanted for each in self.moments.values())]
        return self.n_totals >= MAX_QUESTIONS or not any(columns.any() for columns in wanted)

    def advance(self, total: Mapping[str, np.ndarray], *, min_patients: int) -> StatisticsFrame:
        """The frame of the next question.

        Args:
            total: of `sum_features` at this frame, over hospitals.
            min_patients: see `QuartileSearch.narrow`.
        """
        moments = {
            name: each.refine(*(np.asarray(total[f"{name}/{part}"], dtype=np.float64) for part in PARTS))
            for name, each in self.moments.items()
        }
        counts = np.asarray(total[HISTOGRAM], dtype=np.float64)
        quartiles = self.quartiles.narrow(counts, moments[NUMBERS], min_patients=min_patients)
        return StatisticsFrame(self.n_totals + 1, quartiles, moments)


def replay(schema: Schema, totals: Sequence[Mapping[str, np.ndarray]], *, min_patients: int) -> StatisticsFrame:
    """The frame after these totals."""
    frame = StatisticsFrame.start(schema)
    for total in totals:
        frame = frame.advance(total, min_patients=min_patients)
    return frame


def ask_until_done(
    ask: Callable[[StatisticsFrame, Sequence[Mapping[str, np.ndarray]]], Mapping[str, np.ndarray]],
    schema: Schema,
    *,
    min_patients: int,
) -> tuple[StatisticsFrame, Mapping[str, np.ndarray]]:
    """All questions, one after the other.

    Args:
        ask: the total of `sum_features` at a frame, given the totals before it.
        schema: the study.
        min_patients: see `QuartileSearch.narrow`.

    Returns:
        The last frame, and the total of the first question.
    """
    frame, totals = StatisticsFrame.start(schema), list[Mapping[str, np.ndarray]]()
    while not totals or not frame.is_done:
        totals.append(ask(frame, totals))
        frame = frame.advance(totals[-1], min_patients=min_patients)
    return frame, totals[0]


def statistics_quantities(schema: Schema, *, first: bool) -> Quantities:
    """The arrays of a statistics reply, by name.

    Args:
        schema: the study.
        first: the first question counts everything, later ones look closer at numbers and channels.
    """
    quantities: dict[str, Quantity] = {HISTOGRAM: _count(len(schema.numbers), N_BINS + 2)}
    for each in open_modalities(schema).values():
        for key, start in each.moments().items():
            columns = centred_quantities(len(start.wanted), cells=each.cells())
            quantities |= {f"{key}/{part}": quantity for part, quantity in columns.items()}
    return {**quantities, **(_counted_once(schema) if first else {})}


def _counted_once(schema: Schema) -> Quantities:
    quantities: dict[str, Quantity] = {"n": _count(), "events": _count()}
    for each in open_modalities(schema).values():
        quantities |= each.counted_once()
    return quantities | {f"{name}/present": _count() for name in schema.modalities}


def _count(*shape: int) -> Quantity:
    return Quantity(shape, MAX_PATIENTS, 0)


def sum_features(arrays: PatientArrays, rows: Int64[np.ndarray, "row"], schema: Schema, frame: StatisticsFrame) -> Sums:
    """One hospital's sums over some of its patients.

    Args:
        arrays: all patients of the hospital.
        rows: indices of the patients to count, normally the training part.
        schema: the study.
        frame: the question.

    Returns:
        Arrays as `statistics_quantities` lists them; adding those of two hospitals equals pooling their patients.
    """
    sums: Sums = {HISTOGRAM: frame.quartiles.count(within(arrays.numbers[rows], number_ranges(schema)))}
    for each in open_modalities(schema).values():
        for key in each.moments():
            moments = frame.moments[key]
            wanted = moments.wanted.any()
            values = each.moment_values(arrays, rows) if wanted else np.empty((0, len(moments.wanted)))
            sums |= {f"{key}/{part}": value for part, value in moments.add_up(values).items()}
    return sums | (_count_once(arrays, rows, schema) if not frame.n_totals else {})


def _count_once(arrays: PatientArrays, rows: Int64[np.ndarray, "row"], schema: Schema) -> Sums:
    sums: Sums = {"n": np.array(float(len(rows))), "events": arrays.outcome[rows].sum(dtype=np.float64)}
    for each in open_modalities(schema).values():
        sums |= each.count_once(arrays, rows)
    sums |= {f"{name}/present": arrays.present[name][rows].sum(dtype=np.float64) for name in schema.modalities}
    return {name: np.asarray(value) for name, value in sums.items()}


def stack_totals(totals: Sequence[Arrays], schema: Schema) -> Sums:
    """What later questions rest on, in one array a name: the question is the first axis."""
    names = statistics_quantities(schema, first=False) if totals else {}
    return {name: np.stack([np.asarray(total[name], dtype=np.float64) for total in totals]) for name in names}


def split_totals(stacked: Arrays, schema: Schema) -> list[Sums]:
    """The totals that `stack_totals` put together, as a hospital receives them.

    Raises:
        ProtocolError: other arrays than the agreed ones, or more questions than there may be.
    """
    if not stacked:
        return []
    n_totals = {len(value) if value.ndim else 0 for value in stacked.values()}
    if len(n_totals) > 1 or not n_totals <= set(range(1, MAX_QUESTIONS)):
        raise ProtocolError(f"statistics: expected totals of 1 to {MAX_QUESTIONS - 1} questions, got another number.")
    quantities = {
        name: replace(quantity, limit=quantity.limit * MAX_SITES)
        for name, quantity in statistics_quantities(schema, first=False).items()
    }
    totals = [{name: value[i] for name, value in stacked.items()} for i in range(n_totals.pop())]
    for total in totals:
        check_arrays(total, quantities, where="statistics, totals")
    return totals
