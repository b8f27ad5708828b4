"""Sums of the statistics step: what hospitals count of their training patients, question by question.

The first question counts everything. Later ones look closer at single columns (`quartiles`, `centred_sums`), at places
that follow from the totals of the earlier ones: the coordinator sends these totals, and a hospital derives the places
from them itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float64, Int64

from shared_model.errors import ProtocolError
from shared_model.patient_arrays import PatientArrays
from shared_model.preprocessing.centred_sums import PARTS, CentredSums, centred_quantities
from shared_model.preprocessing.quartiles import N_BINS, QuartileSearch
from shared_model.protocol.quantities import MAX_PATIENTS, MAX_SITES, Arrays, Quantities, Quantity, check_arrays
from shared_model.schema import Events, Schema

NUMBERS, HISTOGRAM = "numbers", "numbers/histogram"
MAX_QUESTIONS = 12
GRAY_LEVELS = 65_535.0

Sums = dict[str, np.ndarray]


@dataclass(frozen=True)
class StatisticsFrame:
    """Places at which a question looks, and what the earlier ones told.

    Attributes:
        n_totals: questions answered so far.
        quartiles: of the static numbers.
        moments: of the static numbers ("numbers") and of each series' channels.
    """

    n_totals: int
    quartiles: QuartileSearch
    moments: Mapping[str, CentredSums]

    @classmethod
    def start(cls, schema: Schema) -> StatisticsFrame:
        """Before the first question: everything is as wide as the schema says."""
        numeric = np.array([column.kind == "numeric" for column in schema.numbers], dtype=bool)
        ranges = _number_ranges(schema)
        moments = {NUMBERS: CentredSums.start(ranges, once=~numeric)}
        for name, series in schema.series.items():
            limits = np.array([channel.range for channel in series.channels], dtype=np.float64)
            moments[name] = CentredSums.start(limits, once=np.zeros(len(limits), dtype=bool))
        return cls(0, QuartileSearch.start(ranges, wanted=numeric), moments)

    @property
    def is_done(self) -> bool:
        """Whether no question is left."""
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
    n_numbers = len(schema.numbers)
    quantities: dict[str, Quantity] = {HISTOGRAM: _count(n_numbers, N_BINS + 2)}
    columns = {NUMBERS: centred_quantities(n_numbers)}
    for name, series in schema.series.items():
        columns[name] = centred_quantities(len(series.channels), cells=series.steps)
    quantities |= {f"{name}/{part}": quantity for name, parts in columns.items() for part, quantity in parts.items()}
    return {**quantities, **(_counted_once(schema) if first else {})}


def _counted_once(schema: Schema) -> Quantities:
    quantities: dict[str, Quantity] = {"n": _count(), "events": _count()}
    quantities |= {f"levels/{column.name}": _count(len(column.levels) + 1) for column in schema.categories}
    for name, events in schema.events.items():
        # The logarithm of a count or dose stays below 50 for every finite float a hospital would record.
        limit = MAX_PATIENTS * 2500.0
        quantities |= {f"{name}/{part}": Quantity((len(events.items),), limit, 0) for part in ("sum", "square")}
    for name, images in schema.images.items():
        pixels = MAX_PATIENTS * images.size**2
        quantities |= {f"{name}/{part}": Quantity((), pixels, 0) for part in ("sum", "square")}
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
    numbers = _within(arrays.numbers[rows], _number_ranges(schema))
    sums: Sums = {HISTOGRAM: frame.quartiles.count(numbers)}
    for name, moments in frame.moments.items():
        if name == NUMBERS:
            values = numbers
        elif moments.wanted.any():
            limits = np.array([channel.range for channel in schema.series[name].channels], dtype=np.float64)
            values = _within(arrays.series[name][rows], limits)
        else:
            values = np.empty((0, len(moments.wanted)))
        sums |= {f"{name}/{part}": value for part, value in moments.add_up(values).items()}
    return sums | (_count_once(arrays, rows, schema) if not frame.n_totals else {})


def _count_once(arrays: PatientArrays, rows: Int64[np.ndarray, "row"], schema: Schema) -> Sums:
    sums: Sums = {"n": np.array(float(len(rows))), "events": arrays.outcome[rows].sum(dtype=np.float64)}
    for i, column in enumerate(schema.categories):
        n_levels = len(column.levels)
        levels = arrays.levels[rows, i]
        sums[f"levels/{column.name}"] = np.bincount(
            np.where(levels < 0, n_levels, levels), minlength=n_levels + 1
        ).astype(np.float64)
    for name, events in schema.events.items():
        here = rows[arrays.present[name][rows]]
        values = compress_events(arrays.events[name][here], events).astype(np.float64)
        sums[f"{name}/sum"], sums[f"{name}/square"] = values.sum(axis=0), np.square(values).sum(axis=0)
    for name in schema.images:
        total, square = _image_sums(arrays, rows, name)
        sums |= {f"{name}/sum": np.array(total), f"{name}/square": np.array(square)}
    sums |= {f"{name}/present": arrays.present[name][rows].sum(dtype=np.float64) for name in schema.modalities}
    return {name: np.asarray(value) for name, value in sums.items()}


def _image_sums(arrays: PatientArrays, rows: Int64[np.ndarray, "row"], name: str) -> tuple[float, float]:
    total = square = 0.0
    for row in rows[arrays.present[name][rows]]:  # one image at a time: a hospital's images do not fit into memory
        gray = arrays.images[name][row].astype(np.float64) / GRAY_LEVELS
        total, square = total + float(gray.sum()), square + float(np.square(gray).sum())
    return total, square


def compress_events(values: Float[np.ndarray, "patient item"], events: Events) -> Float[np.ndarray, "patient item"]:
    """0/1 as it is; counts and doses, which are skewed, as log(1 + x)."""
    return values if events.aggregate == "any" else np.log1p(values)


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


def _number_ranges(schema: Schema) -> Float64[np.ndarray, "number 2"]:
    return np.array([column.range or (0.0, 1.0) for column in schema.numbers], dtype=np.float64).reshape(-1, 2)


def _within(values: np.ndarray, ranges: Float64[np.ndarray, "value 2"]) -> Float64[np.ndarray, "..."]:
    """Values in float64; clipped, because float32 can put a value at the range's end just outside it."""
    clipped: np.ndarray = np.clip(values.astype(np.float64), ranges[:, 0], ranges[:, 1])
    return clipped
