"""One standardisation for all hospitals, from sums that add up over hospitals.

Every hospital sends sums over its training part; their total gives the same moments as pooled patients would. Values
are first mapped to [0, 1] by the schema's range, so sums stay small and squares lose no digits. Medians come from a
histogram with fixed edges (N_BINS bins over the range), because no hospital ships its quantiles.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64

from shared_model.batch import Batch, PatientArrays
from shared_model.errors import StudyError
from shared_model.quantities import MAX_PATIENTS, Quantities, Quantity
from shared_model.schema import Channel, Events, Schema, StaticColumn

N_BINS = 256
GRAY_LEVELS = 65_535.0

Sums = dict[str, np.ndarray]


def feature_quantities(schema: Schema) -> Quantities:
    """The arrays of a statistics reply, by name."""
    n_numbers = len(schema.numbers)
    quantities = {"n": _count(), "events": _count()}
    quantities |= {f"numbers/{part}": _count(n_numbers) for part in ("n", "sum", "square")}
    quantities["numbers/histogram"] = _count(n_numbers, N_BINS)
    quantities |= {f"levels/{column.name}": _count(len(column.levels) + 1) for column in schema.categories}
    for name, series in schema.series.items():
        cells = MAX_PATIENTS * series.steps
        shape = (len(series.channels),)
        quantities |= {f"{name}/{part}": Quantity(shape, cells, 0) for part in ("n", "sum", "square")}
    for name, events in schema.events.items():
        # The logarithm of a count or dose stays below 50 for every finite float a hospital would record.
        limit = MAX_PATIENTS * 2500.0
        quantities |= {f"{name}/{part}": Quantity((len(events.items),), limit, 0) for part in ("sum", "square")}
    for name, images in schema.images.items():
        pixels = MAX_PATIENTS * images.size**2
        quantities |= {f"{name}/{part}": Quantity((), pixels, 0) for part in ("sum", "square")}
    quantities |= {f"{name}/present": _count() for name in schema.modalities}
    return quantities


def _count(*shape: int) -> Quantity:
    return Quantity(shape, MAX_PATIENTS, 0)


def feature_sums(arrays: PatientArrays, rows: Int64[np.ndarray, "row"], schema: Schema) -> Sums:
    """One hospital's sums over some of its patients.

    Args:
        arrays: all patients of the hospital.
        rows: indices of the patients to count, normally the training part.
        schema: the study.

    Returns:
        Arrays as `feature_quantities` lists them; adding those of two hospitals equals pooling their patients.
    """
    outcome = arrays.outcome[rows]
    sums: Sums = {"n": np.array(float(len(rows))), "events": outcome.sum(dtype=np.float64)}
    unit = _to_unit(arrays.numbers[rows], _number_ranges(schema))
    sums |= {f"numbers/{part}": value for part, value in _moments(unit).items()}
    sums["numbers/histogram"] = np.stack(
        [np.histogram(column[~np.isnan(column)], bins=N_BINS, range=(0.0, 1.0))[0] for column in unit.T]
        or [np.zeros(N_BINS)]
    ).astype(np.float64)[: unit.shape[1]]
    for i, column in enumerate(schema.categories):
        n_levels = len(column.levels)
        levels = arrays.levels[rows, i]
        sums[f"levels/{column.name}"] = np.bincount(
            np.where(levels < 0, n_levels, levels), minlength=n_levels + 1
        ).astype(np.float64)
    for name, series in schema.series.items():
        values = _to_unit(arrays.series[name][rows], _channel_ranges(series.channels))
        sums |= {f"{name}/{part}": value for part, value in _moments(values).items()}
    for name, events in schema.events.items():
        here = rows[arrays.present[name][rows]]
        values = compress_events(arrays.events[name][here], events).astype(np.float64)
        sums[f"{name}/sum"], sums[f"{name}/square"] = values.sum(axis=0), np.square(values).sum(axis=0)
    for name in schema.images:
        total, square = _image_sums(arrays, rows, name)
        sums |= {f"{name}/sum": np.array(total), f"{name}/square": np.array(square)}
    sums |= {f"{name}/present": arrays.present[name][rows].sum(dtype=np.float64) for name in schema.modalities}
    return {name: np.asarray(value) for name, value in sums.items()}


def _moments(unit: Float[np.ndarray, "patient ... value"]) -> Sums:
    axes = tuple(range(unit.ndim - 1))
    known = ~np.isnan(unit)
    filled = np.where(known, unit, 0.0)
    return {
        "n": known.sum(axis=axes).astype(np.float64),
        "sum": filled.sum(axis=axes),
        "square": np.square(filled).sum(axis=axes),
    }


def _image_sums(arrays: PatientArrays, rows: Int64[np.ndarray, "row"], name: str) -> tuple[float, float]:
    total = square = 0.0
    for row in rows[arrays.present[name][rows]]:  # one image at a time: a hospital's images do not fit into memory
        gray = arrays.images[name][row].astype(np.float64) / GRAY_LEVELS
        total, square = total + float(gray.sum()), square + float(np.square(gray).sum())
    return total, square


def compress_events(values: Float[np.ndarray, "patient item"], events: Events) -> Float[np.ndarray, "patient item"]:
    """0/1 as it is; counts and doses, which are skewed, as log(1 + x)."""
    return values if events.aggregate == "any" else np.log1p(values)


@dataclass(frozen=True)
class Preprocessing:
    """What turns raw arrays into a batch; the same at every hospital, part of the model.

    Attributes:
        n: patients that the moments rest on.
        events: deaths among them.
        number_mean: mean of each number, in its unit; likewise `number_sd`.
        number_fill: what a missing number is replaced by: the median (numeric) or the mean (binary).
        series_mean: per series, mean of each channel, in its unit; likewise `series_sd`.
        event_mean: per event set, mean of each compressed item; likewise `event_sd`.
        image_mean: per image, mean gray value on a scale of 0 to 1; likewise `image_sd`.
    """

    n: int
    events: int
    number_mean: list[float]
    number_sd: list[float]
    number_fill: list[float]
    series_mean: dict[str, list[float]]
    series_sd: dict[str, list[float]]
    event_mean: dict[str, list[float]]
    event_sd: dict[str, list[float]]
    image_mean: dict[str, float]
    image_sd: dict[str, float]

    def to_json(self) -> str:
        """Text that `from_json` reads back to the same object, to the last bit."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Preprocessing:
        """The object that `to_json` wrote."""
        return cls(**json.loads(text))

    def batch(
        self,
        arrays: PatientArrays,
        rows: Int64[np.ndarray, "row"],
        *,
        schema: Schema,
        device: torch.device,
        without: Collection[str] = (),
    ) -> Batch:
        """Standardised model inputs of some patients.

        Args:
            arrays: all patients of a hospital.
            rows: indices of the wanted patients.
            schema: the study that `arrays` and this preprocessing belong to.
            device: where the tensors go.
            without: images that are not needed, for they are the bulk.
        """
        numbers = arrays.numbers[rows]
        missing = np.isnan(numbers)
        filled = np.where(missing, np.asarray(self.number_fill), numbers)
        standard = (filled - np.asarray(self.number_mean)) / np.asarray(self.number_sd)
        n_levels = np.array([len(column.levels) for column in schema.categories], dtype=np.int64)
        levels = arrays.levels[rows]
        return Batch(
            numbers=_tensor(np.concatenate([standard, missing], axis=1), device),
            levels=torch.from_numpy(np.where(levels < 0, n_levels, levels)).to(device),
            series={name: _tensor(self._series(arrays, rows, name), device) for name in schema.series},
            events={name: _tensor(self._events(arrays, rows, name, schema), device) for name in schema.events},
            images={
                name: _tensor(self._images(arrays, rows, name), device) for name in schema.images if name not in without
            },
            present={name: torch.from_numpy(arrays.present[name][rows]).to(device) for name in schema.modalities},
            outcome=_tensor(arrays.outcome[rows], device),
        )

    def _series(self, arrays: PatientArrays, rows: Int64[np.ndarray, "row"], name: str) -> np.ndarray:
        values = arrays.series[name][rows]
        measured = ~np.isnan(values)
        standard = (values - np.asarray(self.series_mean[name])) / np.asarray(self.series_sd[name])
        n_steps = values.shape[1]
        steps = np.arange(n_steps).reshape(1, -1, 1)
        last = np.maximum.accumulate(np.where(measured, steps, -1), axis=1)
        gap = np.where(last < 0, n_steps, steps - last) / n_steps
        inputs = np.concatenate([np.where(measured, standard, 0.0), measured, gap], axis=2)
        return np.where(arrays.present[name][rows, None, None], inputs, 0.0)

    def _events(self, arrays: PatientArrays, rows: Int64[np.ndarray, "row"], name: str, schema: Schema) -> np.ndarray:
        values = compress_events(arrays.events[name][rows], schema.events[name])
        standard = (values - np.asarray(self.event_mean[name])) / np.asarray(self.event_sd[name])
        return np.where(arrays.present[name][rows, None], standard, 0.0)

    def _images(self, arrays: PatientArrays, rows: Int64[np.ndarray, "row"], name: str) -> np.ndarray:
        gray = arrays.images[name][rows].astype(np.float32) / GRAY_LEVELS
        standard = (gray - self.image_mean[name]) / self.image_sd[name]
        return np.where(arrays.present[name][rows, None, None], standard, 0.0)[:, None]


def fit_preprocessing(sums: Mapping[str, np.ndarray], schema: Schema) -> Preprocessing:
    """Preprocessing from summed `feature_sums`.

    Raises:
        StudyError: no patients, or no deaths, or only deaths among them: nothing can be learned.
    """
    n, events = int(sums["n"]), int(sums["events"])
    if not 0 < events < n:
        raise StudyError(
            f"training data of all hospitals: expected patients with and without the outcome, got {events} events "
            f"among {n} patients. Check the outcome column and the fold settings."
        )
    ranges = _number_ranges(schema)
    mean, sd = _mean_and_sd(sums["numbers/n"], sums["numbers/sum"], sums["numbers/square"])
    fill = [
        _median(histogram) if column.kind == "numeric" and histogram.sum() else mean[i]
        for i, (column, histogram) in enumerate(zip(schema.numbers, sums["numbers/histogram"], strict=True))
    ]
    width = ranges[:, 1] - ranges[:, 0]
    series_mean, series_sd = {}, {}
    for name, series in schema.series.items():
        limits = _channel_ranges(series.channels)
        span = limits[:, 1] - limits[:, 0]
        unit_mean, unit_sd = _mean_and_sd(sums[f"{name}/n"], sums[f"{name}/sum"], sums[f"{name}/square"])
        series_mean[name], series_sd[name] = (limits[:, 0] + span * unit_mean).tolist(), (span * unit_sd).tolist()
    event_moments = {
        name: _mean_and_sd(sums[f"{name}/present"], sums[f"{name}/sum"], sums[f"{name}/square"])
        for name in schema.events
    }
    image_moments = {
        name: _mean_and_sd(
            np.asarray(sums[f"{name}/present"] * images.size**2), sums[f"{name}/sum"], sums[f"{name}/square"]
        )
        for name, images in schema.images.items()
    }
    return Preprocessing(
        n=n,
        events=events,
        number_mean=(ranges[:, 0] + width * mean).tolist(),
        number_sd=(width * sd).tolist(),
        number_fill=(ranges[:, 0] + width * np.array(fill)).tolist(),
        series_mean=series_mean,
        series_sd=series_sd,
        event_mean={name: moments[0].tolist() for name, moments in event_moments.items()},
        event_sd={name: moments[1].tolist() for name, moments in event_moments.items()},
        image_mean={name: float(moments[0]) for name, moments in image_moments.items()},
        image_sd={name: float(moments[1]) for name, moments in image_moments.items()},
    )


def _mean_and_sd(n: np.ndarray, total: np.ndarray, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moments of values on a scale of about 1; a constant or never measured value gets sd 1, so it becomes 0."""
    count = np.maximum(n, 1)
    mean = np.asarray(total / count)
    sd = np.sqrt(np.maximum(square / count - np.square(mean), 0.0))
    return mean, np.where(sd > 1e-6, sd, 1.0)


def _median(histogram: Float[np.ndarray, "bin"]) -> float:
    """Median on the unit scale, linear within its bin: within 1 / N_BINS of the lower median of the values."""
    cumulative = np.concatenate([[0.0], np.cumsum(histogram)])
    half = cumulative[-1] / 2
    i = int(np.searchsorted(cumulative, half, side="left")) - 1
    i = max(i, 0)
    inside = (half - cumulative[i]) / histogram[i] if histogram[i] else 0.0
    return float((i + inside) / N_BINS)


def _number_ranges(schema: Schema) -> Float[np.ndarray, "number 2"]:
    return np.array([_range(column) for column in schema.numbers], dtype=np.float64).reshape(-1, 2)


def _range(column: StaticColumn) -> tuple[float, float]:
    return column.range if column.range is not None else (0.0, 1.0)


def _channel_ranges(channels: Sequence[Channel]) -> Float[np.ndarray, "channel 2"]:
    return np.array([channel.range for channel in channels], dtype=np.float64)


def _to_unit(values: np.ndarray, ranges: Float[np.ndarray, "value 2"]) -> np.ndarray:
    """Values on a scale of 0 to 1; clipped, because float32 can put a value at the range's end just outside it."""
    unit = (values.astype(np.float64) - ranges[:, 0]) / (ranges[:, 1] - ranges[:, 0])
    clipped: np.ndarray = np.clip(unit, 0.0, 1.0)
    return clipped


def _tensor(values: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(device)
